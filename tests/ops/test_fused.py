"""Fused operators: the bytes of the operators one after the other, on every level."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from operator_inputs import assert_all_levels_agree, codes, generator, graph, misaligned
from torch import Tensor

import flat
from nodebits import ops
from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.own_scale import OwnScale
from nodebits.core.row_layout import RowLayout
from nodebits.ops.features import scan_features

BITS = range(1, 9)
DEGREES = [0, 1, 2, 17, 0, 86, 258, 3, 300, 5, 0, 40]


def quantizers(
    rows: int, cols: int, bits: list[int], g: torch.Generator
) -> tuple[list[Tensor], list[Tensor], list[int], list[Tensor | None]]:
    """One per width: scales per tensor and per column in turn, with and without row factors."""
    widths = [1 if i % 2 == 0 else cols for i in range(len(bits))]
    scale = [torch.rand(n, generator=g) * 3 + 0.1 for n in widths]
    zero = [torch.rand(n, generator=g) * (1 << b) for n, b in zip(widths, bits, strict=True)]
    factor = [torch.rand(rows, generator=g) if i % 3 else None for i in range(len(bits))]
    return scale, zero, bits, factor


def finished(y: Tensor, relu: bool, *quantizer: list[Any]) -> list[Tensor]:
    """What the fused operators go on with, in plain operators."""
    if relu:
        y = torch.relu(y)
    return [
        ops.quantize_pack(y, s, z, -1 if s.numel() == 1 else 1, b, f)
        for s, z, b, f in zip(*quantizer, strict=True)
    ] or [y]


def spmm_case(bits: int, cols: int, heads: int, seed: int = 0) -> dict[str, Any]:
    g = generator(seed + bits)
    rows = len(DEGREES)
    indptr, indices = graph(DEGREES, 19, g)
    return {
        "indptr": indptr,
        "indices": indices,
        "packed": misaligned(ops.pack(codes(19, cols, bits, g), bits)),
        "bits": bits,
        "num_cols": cols,
        "weight": codes(int(indptr[-1]), heads, 8, g) if heads > 1 else None,
        "blocks": None,
        "acc_scale": None,
        "acc_offset": None,
        "col_scale": torch.randn(cols, generator=g) * 0.1,
        "col_offset": torch.randn(cols, generator=g),
        "row_offset": torch.rand(rows, heads, generator=g) * 5,
        "row_scale": torch.rand(rows, 1, generator=g),
        "bias": torch.randn(cols, generator=g),
        "own": None,
        "own_factor": None,
    }


@pytest.mark.parametrize("bits", BITS)
def test_spmm_every_width(bits: int) -> None:
    for cols in (1, 8, 17, 64, 65, 129, 257):
        g = generator(cols)
        case = spmm_case(bits, cols, 1)
        for out in ([], [bits], [8, bits, 3]):
            q = quantizers(len(DEGREES), cols, out, g)
            made = assert_all_levels_agree(flat.fused_spmm, *case.values(), bool(cols % 2), *q)
            acc = flat.spmm(*list(case.values())[:5])
            y = flat.rescale(acc, *list(case.values())[9:14])
            for a, b in zip(made, finished(y, bool(cols % 2), *q), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("first", range(1, 131, 26))
def test_every_number_of_columns(first: int) -> None:
    """Rows end anywhere in a block of 64 columns, fused and in the quantizer alone."""
    g = generator(first)
    for cols in range(first, first + 26):
        case = spmm_case(2, cols, 1)
        scale = [torch.rand(cols, generator=g) + 0.1 for _ in BITS]
        zero = [torch.rand(cols, generator=g) for _ in BITS]
        made = assert_all_levels_agree(
            flat.fused_spmm, *case.values(), False, scale, zero, list(BITS), [None] * len(BITS)
        )
        acc = flat.spmm(*list(case.values())[:5])
        y = flat.rescale(acc, *list(case.values())[9:14])
        for bits, s, z, fused in zip(BITS, scale, zero, made, strict=True):
            plain = assert_all_levels_agree(ops.quantize_pack, y, s, z, 1, bits, None)
            assert torch.equal(fused, plain)


@pytest.mark.parametrize("heads", [2, 4])
def test_spmm_with_edge_weights(heads: int) -> None:
    for cols in (8, 24, 64, 136):
        for bits in (2, 4, 8):
            case = spmm_case(bits, cols, heads)
            q = quantizers(len(DEGREES), cols, [4], generator())
            made = assert_all_levels_agree(flat.fused_spmm, *case.values(), True, *q)
            values = list(case.values())
            y = flat.rescale(flat.spmm_weighted(*values[:6]), *values[9:14])
            assert torch.equal(made[0], finished(y, True, *q)[0])


@pytest.mark.parametrize("bits", BITS)
def test_spmm_own_rows_and_integer_transform(bits: int) -> None:
    g = generator(bits)
    rows = len(DEGREES)
    for cols in (5, 64, 700):
        case = spmm_case(bits, cols, 1)
        case["own"] = ops.pack(codes(rows, cols, bits, g), bits)
        case["own_factor"] = torch.tensor([1.3])
        q = quantizers(rows, cols, [5], g)
        for offset in (case["col_offset"], None):
            case["col_offset"] = offset
            made = assert_all_levels_agree(flat.fused_spmm, *case.values(), False, *q)
            acc = flat.spmm(*list(case.values())[:5])
            y = flat.rescale(acc, *list(case.values())[9:14])
            own = ops.unpack(case["own"], bits, cols).float()
            own = (own if offset is None else own - offset) * case["col_scale"]
            assert torch.equal(made[0], finished(y + 1.3 * own, False, *q)[0])
        case["acc_scale"] = torch.randint(-3, 9, (rows,), generator=g, dtype=torch.int32)
        case["acc_offset"] = torch.randint(-(2**31), 2**31 - 1, (rows,), dtype=torch.int32)
        made = assert_all_levels_agree(flat.fused_spmm, *case.values(), False, [], [], [], [])
        assert made[0].isfinite().all()


@pytest.mark.parametrize("bits", BITS)
def test_gemm_every_width(bits: int) -> None:
    g = generator(bits)
    for rows, depth, cols in ((1, 1, 1), (61, 40, 17), (130, 1030, 65), (7, 33, 600)):
        for count in (1, 2):
            x = [ops.pack(codes(rows, depth, bits, g), bits) for _ in range(count)]
            w = [ops.pack(codes(cols, depth, 4, g), 4) for _ in range(count)]
            col_scale = [torch.randn(cols, generator=g) for _ in range(count)]
            offset = [torch.randn(cols, generator=g), None][:count]
            row_scale = [None, torch.rand(rows, 1, generator=g)][:count]
            bias = [torch.randn(cols, generator=g), None][:count]
            products = (x, [bits] * count, [depth] * count, w, [4] * count, [True] * count)
            for out in ([], [bits, 8]):
                q = quantizers(rows, cols, out, g)
                made = assert_all_levels_agree(
                    flat.fused_gemm, *products, col_scale, offset, row_scale, bias, True, *q
                )
                y = None
                for i in range(count):
                    acc = flat.gemm(x[i], bits, depth, w[i], 4, True)
                    part = flat.rescale(acc, col_scale[i], offset[i], None, row_scale[i], bias[i])
                    y = part if y is None else y + part
                assert y is not None
                for a, b in zip(made, finished(y, True, *q), strict=True):
                    assert torch.equal(a, b)


@pytest.mark.parametrize("cols", (1, 17, 64, 65, 130, 600))
@pytest.mark.parametrize("relu", (False, True))
def test_affine_before_the_activation(cols: int, relu: bool) -> None:
    """``y * post_scale + post_shift``: two roundings in every fused operator, as in torch."""
    g = generator(cols)
    post = torch.randn(cols, generator=g), torch.randn(cols, generator=g)
    none: tuple[list[None], ...] = ([], [], [])

    def compare(run: Any, args: tuple[Any, ...], rows: int, y: Tensor) -> None:
        expected = y * post[0] + post[1]
        for out in ([], [8, 3]):
            q = quantizers(rows, cols, out, g)
            made = assert_all_levels_agree(run, *args, relu, *q, *none, *post)
            for a, b in zip(made, finished(expected, relu, *q), strict=True):
                assert torch.equal(a, b)

    rows = len(DEGREES)
    for heads in (1, 2) if cols % 2 == 0 else (1,):
        case = spmm_case(4, cols, heads)
        values = tuple(case.values())
        acc = flat.spmm(*values[:5]) if heads == 1 else flat.spmm_weighted(*values[:6])
        compare(flat.fused_spmm, values, rows, flat.rescale(acc, *values[9:14]))
    case = {**spmm_case(4, cols, 1), "own": ops.pack(codes(rows, cols, 4, g), 4)}
    case["own_factor"] = torch.tensor([1.3])
    values = tuple(case.values())
    own = (ops.unpack(case["own"], 4, cols).float() - case["col_offset"]) * case["col_scale"]
    y = flat.rescale(flat.spmm(*values[:5]), *values[9:14]) + 1.3 * own
    compare(flat.fused_spmm, values, rows, y)

    w, scale = ops.pack(codes(cols, 33, 4, g), 4), torch.randn(cols, generator=g)
    x = [ops.pack(codes(70, 33, bits, g), bits) for bits in (4, 2)]
    parts = [
        flat.rescale(flat.gemm(one, bits, 33, w, 4), scale)
        for one, bits in zip(x, (4, 2), strict=True)
    ]
    for n in (1, 2):
        products = (x[:n], [4, 2][:n], [33] * n, [w] * n, [4] * n, [False] * n, [scale] * n)
        y = parts[0] if n == 1 else parts[0] + parts[1]
        compare(flat.fused_gemm, (*products, *[[None] * n] * 3), 70, y)
    layout = RowLayout.of(torch.randint(1, 9, (70,), generator=g))
    values = torch.randn(70, 33, generator=g)
    places = layout.widths, layout.position
    mixed = ops.quantize_pack_bucketed(values, torch.ones(1), torch.zeros(8), -1, *places)
    product = (mixed, layout.order, list(layout.counts), 33, w, 4, False, scale)
    y = flat.fused_gemm_bucketed(*product, *[None] * 4, False, [], [], [], [])[0]
    compare(flat.fused_gemm_bucketed, (*product, *[None] * 4), 70, y)

    def features(*args: Any) -> list[Tensor]:
        return flat.fused_gemm_features(*args).results

    product = (values, 8, True, w, 4, False, scale, None, None)
    compare(features, product, 70, features(*product, False, *[[]] * 7)[0])


def test_not_finite_values_and_signed_zeros() -> None:
    """The activation keeps NaN and -0, as torch's does; NaN becomes code 0."""
    indptr, indices = torch.tensor([0, 1, 2]), torch.tensor([0, 1], dtype=torch.int32)
    packed = torch.tensor([[1, 0, 2]] * 2, dtype=torch.uint8)
    col_scale = torch.tensor([math.inf, math.inf, -0.0])
    args = (indptr, indices, packed, 8, 3, *[None] * 4, col_scale, *[None] * 6, True)
    floats = assert_all_levels_agree(flat.fused_spmm, *args, [], [], [], [])[0]
    assert floats[0, 0] == math.inf and floats[0, 1].isnan()
    assert math.copysign(1.0, float(floats[0, 2])) == -1.0
    one = [torch.ones(1)]
    assert_all_levels_agree(flat.fused_spmm, *args, one, one, [2], [None])


def test_empty() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    q = ([torch.ones(1)], [torch.zeros(1)], [4], [None])
    for rows, cols in ((0, 5), (3, 0), (3, 5)):
        indptr = torch.zeros(rows + 1, dtype=torch.int64)
        table = torch.zeros(0, (cols + 1) // 2, dtype=torch.uint8)
        sums = (indptr, none, table, 4, cols, *[None] * 4, torch.ones(cols), *[None] * 6)
        assert_all_levels_agree(flat.fused_spmm, *sums, True, *q)
        x, w = torch.zeros(rows, 0, dtype=torch.uint8), torch.zeros(cols, 0, dtype=torch.uint8)
        scale = [torch.ones(cols)]
        product = ([x], [4], [0], [w], [4], [False], scale, [None], [None], [torch.ones(cols)])
        assert_all_levels_agree(flat.fused_gemm, *product, True, *q)


@pytest.mark.parametrize("isa", ops.available_isas())
def test_bad_arguments(isa: str) -> None:
    case = spmm_case(4, 16, 1)
    one, zero = [torch.ones(1)], [torch.zeros(1)]

    def call(**changed: Any) -> None:
        flat.fused_spmm(*{**case, **changed}.values(), False, one, zero, [4], [None])

    with ops.force_isa(isa):
        call()
        with pytest.raises(ShapeError, match="own_factor come together"):
            call(own=case["packed"])
        with pytest.raises(ShapeError, match="own has 19 rows"):
            call(own=case["packed"], own_factor=torch.ones(1))
        with pytest.raises(ShapeError, match="acc_scale"):
            call(acc_scale=torch.ones(3, dtype=torch.int32))
        with pytest.raises(ShapeError, match="bias"):
            call(bias=torch.ones(3))
        values = tuple(case.values())
        with pytest.raises(BitwidthError):
            flat.fused_spmm(*values, False, one, zero, [9], [None])
        with pytest.raises(ShapeError, match="scale of a result"):
            flat.fused_spmm(*values, False, [torch.ones(3)], zero, [4], [None])
        with pytest.raises(ShapeError, match="row_factor has 2"):
            flat.fused_spmm(*values, False, one, zero, [4], [torch.ones(2)])
        end = (*values, False, one, zero, [4], [None], [], [], [])
        with pytest.raises(ShapeError, match="post_scale and post_shift come together"):
            flat.fused_spmm(*end, torch.ones(16), None)
        with pytest.raises(ShapeError, match=r"post_shift must be float32 \[16\]"):
            flat.fused_spmm(*end, torch.ones(16), torch.ones(1))
        with pytest.raises(ShapeError, match="post_scale must be float32"):
            flat.fused_spmm(*end, torch.ones(16).double(), torch.ones(16))
        x = torch.zeros(3, 4, dtype=torch.uint8)
        w = [x, x[:2]]
        lists = ([x, x], [8, 8], [4, 4], w, [8, 8], [False] * 2, [torch.ones(3)] * 2)
        with pytest.raises(ShapeError, match="product 1 has 3 x 2"):
            flat.fused_gemm(*lists, *[[None] * 2] * 3, False, [], [], [], [])
        with pytest.raises(ShapeError, match="no tensor"):
            ops.fused_gemm([], ops.Sink())


def test_lists_of_one_record_are_as_long_as_each_other() -> None:
    product = ops.Product(
        ops.Source(torch.zeros(3, 4, dtype=torch.uint8), 8, 4),
        ops.Weight(torch.zeros(2, 4, dtype=torch.uint8), 8),
        ops.Epilogue(torch.ones(2)),
    )
    sink = ops.Sink(outputs=[ops.Output(torch.ones(1), torch.zeros(1), 4)])
    given = ops.fused_gemm.flat(([product], sink))
    assert ops.fused_gemm.record(*given) == ([product], sink)
    for at, message in ((1, "one entry per product"), (-5, "one entry per output")):
        wrong = [*given]
        wrong[at] = [*wrong[at], *wrong[at]]
        with pytest.raises(ShapeError, match=message):
            ops.fused_gemm.schema(*wrong)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", (True, False))
def test_products_of_raw_features(bits: int, symmetric: bool) -> None:
    """Packing on the way changes no byte."""
    g = generator(bits)
    for rows, depth, cols in ((1, 1, 1), (61, 40, 17), (130, 1030, 65), (7, 33, 600), (0, 5, 3)):
        x = torch.randn(rows, depth, generator=g)
        x = x if symmetric else x.abs()
        scan = scan_features(x, OwnScale(bits, symmetric), 0.0)
        assert scan.packed is not None
        w = ops.pack(codes(cols, depth, 4, g), 4)
        epilogue = [torch.randn(cols, generator=g) for _ in range(3)]
        scale, offset, bias = epilogue
        for out in ([], [bits, 8]):
            q = quantizers(rows, cols, out, g)
            places = ([], [], [])

            def run(*args: Any) -> list[Tensor]:
                made = flat.fused_gemm_features(*args)
                assert made.finite and made.negative == bool((args[0] < 0).any())
                return made.results

            args = (x, bits, symmetric, w, 4, True, scale, offset, bias, True, *q, *places)
            made = assert_all_levels_agree(run, *args)
            acc = flat.gemm(scan.packed, bits, depth, w, 4, True)
            y = flat.rescale(acc, scale, offset, None, scan.scale.view(-1, 1), bias)
            for a, b in zip(made, finished(y, True, *q), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("isa", ops.available_isas())
def test_raw_features_that_are_not_as_hoped(isa: str) -> None:
    w, one = torch.zeros(3, 4, dtype=torch.uint8), torch.ones(3)
    end = (False, *[[]] * 7)
    for value, finite, negative in (
        (1.0, True, False),
        (-1.0, True, True),
        (math.nan, False, False),
        (math.inf, False, False),
    ):
        x = torch.ones(70, 4)
        x[65, 2] = value
        with ops.force_isa(isa):
            made = flat.fused_gemm_features(x, 8, False, w, 8, False, one, None, None, *end)
        assert (made.finite, made.negative) == (finite, negative)


def test_large_results_lie_on_pages_of_their_own() -> None:
    rows, depth = 40_000, 256
    x = torch.randint(0, 255, (rows, depth), dtype=torch.uint8)
    w = torch.ones(32, depth, dtype=torch.uint8)
    product = ([x], [8], [depth], [w], [8], [False], [torch.ones(32)], [None], [None], [None])
    made = flat.fused_gemm(*product, False, [], [], [], [])[0]
    assert torch.equal(made, flat.gemm(x, 8, depth, w, 8).float())
    kept = made[5:9]
    expected = kept.clone()
    del made
    assert torch.equal(kept, expected)  # the pages live as long as anything that sees them
