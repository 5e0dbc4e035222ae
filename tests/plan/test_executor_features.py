"""Raw features: what ``DynamicRows`` and ``Raw`` make of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, same
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import symmetric_qparams, unsigned_qparams
from nodebits.core.errors import NonFiniteError
from nodebits.core.own_scale import OwnScale
from nodebits.ops import Epilogue, Output, Product, Sink, Source, Weight
from nodebits.ops.definitions.products import weight_values


def features(kind: str, rows: int, cols: int) -> Tensor:
    if kind == "positive":
        return torch.rand(rows, cols)
    if kind == "words":
        x = (torch.rand(rows, cols) < 0.02).float()
        return x / x.sum(1, keepdim=True).clamp_min(1)
    if kind in ("few", "few, both", "few, then all"):
        x = torch.rand(rows, cols) * (torch.rand(rows, cols) < 0.05)
        x[1] = 0.0
        if kind == "few, both":
            x[rows // 2] = -x[rows // 2]
        if kind == "few, then all":  # more than the rows of the sample let expect
            x[1 : max(2, rows // 32)] = 1.0 + torch.rand(1, cols)
        return x
    x = torch.randn(rows, cols)
    x[1] = 0.0
    x[2] = -x[2].abs()
    return x


def packed(x: Tensor, own: OwnScale) -> tuple[Tensor, Tensor]:
    scale = own.scale(x)
    with ops.force_isa("reference"):
        zero = torch.full_like(scale, own.zero_point)
        return ops.quantize_pack(x, scale, zero, 0, own.bits), scale


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["positive", "both", "words"])
@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pack_own(kind: str, signed: bool, bits: int, trim: bool) -> None:
    own = OwnScale(bits, signed, trim)
    for shape in ((40, 33), (400, 200), (5, 0), (0, 7)):
        x = features(kind, *shape) if min(shape) else torch.empty(shape)
        case = Case()
        x = x.pow(3) if trim else x
        made = case.everywhere(
            *case.step("pack_own", case.input(x), bits, signed, *own.trims, outs=2)
        )
        for got, want in zip(made, packed(x, own), strict=True):
            assert same(got, want)


@pytest.mark.parametrize("signed", [False, True])
def test_pack_own_of_values_that_are_no_numbers(signed: bool) -> None:
    x = torch.randn(6, 9)
    x[0, 3], x[1, 2], x[2, 1] = float("nan"), float("inf"), -float("inf")
    case = Case()
    own = OwnScale(4, signed, True)
    made = case.everywhere(*case.step("pack_own", case.input(x), 4, signed, True, outs=2))
    for got, want in zip(made, packed(x, own), strict=True):
        assert same(got, want)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["positive", "both", "words", "few", "few, both", "few, then all"])
@pytest.mark.parametrize("outputs", [0, 2])
@pytest.mark.parametrize(("midrise", "w_bits"), [(False, 4), (True, 3), (False, 8), (True, 7)])
def test_feature_product(kind: str, signed: bool, outputs: int, midrise: bool, w_bits: int) -> None:
    for rows, depth, cols in ((33, 40, 17), (4000, 70, 16), (600, 300, 83)):
        bits = 8 if depth == 70 else 4
        x = features(kind, rows, depth)
        w = Weight(
            ops.pack(torch.randint(0, 1 << w_bits, (cols, depth), dtype=torch.uint8), w_bits),
            w_bits,
            midrise,
        )
        w_scale, bias = torch.rand(cols), torch.randn(cols)
        col_sum = weight_values(w, depth).sum(1).float()
        own = OwnScale(bits, signed, midrise)
        codes, scale = packed(x, own)
        offset = col_sum * float(1 << (bits - 1)) if signed else None
        made_by = [Output(torch.rand(1) + 0.1, torch.ones(1), 4, torch.rand(rows))]
        made_by = ([*made_by, Output(torch.rand(cols) + 0.1, torch.ones(1), 8)])[:outputs]
        post = torch.rand(cols), torch.randn(cols)
        sink = Sink(True, made_by, *post)
        epilogue = Epilogue(w_scale, offset, None, scale.view(-1, 1), bias)
        with ops.force_isa("reference"):
            expected = ops.fused_gemm([Product(Source(codes, bits, depth), w, epilogue)], sink)
        case = Case()
        lists: list[Any] = [list(field) for field in zip(*made_by, strict=True)]
        refs = case.step(
            "feature_product",
            case.input(x, "x", [None, depth]),
            bits,
            signed,
            *w,
            w_scale,
            col_sum,
            bias,
            True,
            *(lists or [[] for _ in range(7)]),
            *post,
            *own.trims,
            outs=max(outputs, 1),
        )
        made = case.everywhere(*([refs] if isinstance(refs, str) else refs))
        for got, want in zip(made, expected, strict=True):
            assert same(got, want)


def test_values_that_are_no_numbers() -> None:
    x = torch.randn(20, 30)
    x[3, 4] = float("nan")
    x[5, 6] = float("inf")
    w = ops.pack(torch.randint(0, 16, (8, 30), dtype=torch.uint8), 4)
    tail = [torch.rand(8), torch.rand(8), None, False, *([] for _ in range(7)), None, None]
    message = r"the feature matrix has 2 value\(s\) .* the first \(nan\) at \[3, 4\]"
    for signed in (False, True):
        case = Case()
        ref = case.step("feature_product", case.input(x), 4, signed, w, 4, False, *tail)
        with pytest.raises(NonFiniteError, match=message):
            case.run(ref)
    case = Case()
    ref = case.input(x, "x")
    case.step("check_finite", ref, outs=0)
    with pytest.raises(NonFiniteError, match=r'"x" has 2 value'):
        case.run(ref)


def test_scales_of_rows_are_those_of_the_definition() -> None:
    x = torch.rand(5, 4) * torch.tensor([[1e-40], [1e-30], [1.0], [1e30], [0.0]])
    for bits in range(1, 9):
        for signed, make in ((False, unsigned_qparams), (True, symmetric_qparams)):
            case = Case()
            _, scale = case.run(*case.step("pack_own", case.input(x), bits, signed, outs=2))
            assert same(scale, make(x.amax(1), bits)[0])


@pytest.mark.parametrize("hoisted", (True, False))
def test_rows_that_several_steps_pack(hoisted: bool) -> None:
    """They are read once, and refused where a step before would; a factor made later waits."""
    rows, cols = 300, 90
    for bad in (None, (0, 0), (299, 89)):
        case = Case()
        x = torch.randn(rows, cols)
        if bad is not None:
            x[bad] = float("-inf")
        ref, factor = case.input(x, "x"), case.input(torch.rand(rows), "factor")
        scale, zero, one = torch.rand(cols) + 0.1, torch.rand(cols) * 4, torch.rand(1) + 0.1
        case.step("check_finite", ref, outs=0)
        first = case.step("quantize_pack", ref, scale, zero, 1, 4, None)
        if not hoisted:
            factor = case.step("view", factor, [rows])
        second = case.step("quantize_pack", ref, scale, zero, 1, 8, factor)
        third = case.step("quantize_pack", ref, one, one, -1, 3, None)
        if bad is not None:
            with pytest.raises(NonFiniteError, match=rf"\(-inf\) at \[{bad[0]}, {bad[1]}\]"):
                case.run(first, second, third)
            continue
        pack = torch.ops.nodebits.quantize_pack
        expected = [
            reference(pack, x, scale, zero, 1, 4, None),
            reference(pack, x, scale, zero, 1, 8, case.given[1]),
            reference(pack, x, one, one, -1, 3, None),
        ]
        assert all(map(same, case.everywhere(first, second, third), expected))
