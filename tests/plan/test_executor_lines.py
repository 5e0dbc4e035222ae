"""Codes that are found by a line in the sum: the bits of the definitions, whatever the constants.

Scales of simple ratios put sums halfway between two codes, where a line and rounding part.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, same
from test_executor import as_list, as_refs, packed_rows, random_csr
from torch import Tensor

from nodebits import ops

OPS = torch.ops.nodebits
SIMPLE = torch.tensor([0.25, 0.5, 5 / 22, 1.0])  # ratios with ties


def check(op: str, args: list[Any], given: list[int], outs: int = 1) -> None:
    """A step whose tensors are constants, but for the arguments in ``given``; run twice."""
    expected = as_list(reference(getattr(OPS, op), *args))
    case = Case()

    def place(arg: Any, as_input: bool) -> Any:
        if isinstance(arg, list):
            return [place(item, as_input) for item in arg]
        if isinstance(arg, Tensor):
            return case.input(arg) if as_input else case.constant(arg)
        return arg

    refs = case.step(op, *[place(arg, i in given) for i, arg in enumerate(args)], outs=outs)
    for _ in range(2):
        for got, want in zip(case.everywhere(*as_refs(refs)), expected, strict=True):
            assert same(got, want), op


def quantizer(cols: int, bits: int, per_column: bool, scale: Tensor | None = None) -> list[Any]:
    """The lists of a sink with one output."""
    found = torch.rand(cols if per_column else 1) * 2 + 0.05 if scale is None else scale
    zero = torch.rand(found.numel()) * (1 << bits) / 2
    return [[found], [zero], [bits], [None], [None], [None], [None]]


@pytest.mark.parametrize("cols", [3, 64, 83])
@pytest.mark.parametrize(("bits", "out_bits"), [(4, 4), (2, 8), (8, 3), (8, 8), (1, 2)])
@pytest.mark.parametrize("relu", [False, True])
def test_products(cols: int, bits: int, out_bits: int, relu: bool) -> None:
    rows, depth = 150, 64
    x = ops.unpack(packed_rows(rows, depth, bits), bits, depth)
    x[0], x[1] = 0, (1 << bits) - 1
    weight = packed_rows(cols, depth, 4)
    scale = torch.rand(cols) * 4 / depth / (1 << bits)
    lists = quantizer(cols, out_bits, relu)
    post = [torch.randn(cols), torch.randn(cols)] if relu else [None, None]
    args = [[ops.pack(x, bits)], [bits], [depth], [0], [weight], [4], [False], [scale],
            [torch.randn(cols) * 5], [None], [None], [torch.randn(cols)], relu]  # fmt: skip
    check("fused_gemm", [*args, *lists, *post], given=[0])


def test_products_halfway_between_codes() -> None:
    rows, depth, cols = 200, 16, 64
    args = [[packed_rows(rows, depth, 4)], [4], [depth], [0], [packed_rows(cols, depth, 4)], [4],
            [False], [SIMPLE.repeat(16)], [None], [None], [None], [None], False]  # fmt: skip
    lists = [[torch.ones(1)], [torch.zeros(1)], [4], [None], [None], [None], [None]]
    check("fused_gemm", [*args, *lists, None, None], given=[0])


def test_products_without_a_line() -> None:
    """A column of zeros, one without a scale that is finite, and two quantizers."""
    rows, depth, cols = 40, 24, 64
    for bad in (0.0, 1e-30, 3e38):
        scale = torch.rand(cols) * 0.01
        scale[7] = bad
        first, second = quantizer(cols, 4, False), quantizer(cols, 2, True)
        lists = [a + b for a, b in zip(first, second, strict=True)]
        args = [[packed_rows(rows, depth, 4)], [4], [depth], [0], [packed_rows(cols, depth, 4)],
                [4], [False], [scale], [None], [None], [None], [torch.randn(cols)],
                True]  # fmt: skip
        check("fused_gemm", [*args, *lists, None, None], given=[0], outs=2)


@pytest.mark.parametrize("cols", [3, 32, 64, 101])
@pytest.mark.parametrize(("bits", "out_bits"), [(4, 4), (4, 3), (2, 8), (1, 1), (2, 2)])
@pytest.mark.parametrize("own", ["", "own", "twice"])
@pytest.mark.parametrize("simple", [False, True])
def test_sums(cols: int, bits: int, out_bits: int, own: str, simple: bool) -> None:
    """Rows of no edges, of few and, in the last one, of more than bytes can sum."""
    rows = 60
    indptr, indices, _ = random_csr(rows - 1, rows, 180)
    many = torch.randint(0, rows, (300,), dtype=torch.int32)
    indptr = torch.cat([indptr, indptr[-1:] + 300])
    indices = torch.cat([indices, many])
    table = packed_rows(rows, cols, bits)
    tail: list[Any] = [None, None, None, None]
    if own:
        tail[2:] = [table, torch.tensor([1.0 if own == "own" else 2.0])]
    scale = torch.rand(cols) + 0.1
    if simple:
        scale[:: max(cols // 3, 1)] = SIMPLE[torch.arange(len(scale[:: max(cols // 3, 1)])) % 4]
    lists = quantizer(cols, out_bits, False, torch.ones(1) if simple else None)
    if simple:
        lists[1] = [torch.zeros(1)]
    # The degree's factor has no meaning where the offset is zero.
    epilogue = [scale, torch.zeros(1), torch.rand(rows, 1), None, None]
    args = [indptr, indices, None, None, table, bits, cols, 0, *tail, *epilogue, True, *lists]
    check("fused_spmm", [*args, None, None], given=[0, 1, 4, 10])
