"""Sums and extremes of neighbours that are packed as they are made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, same
from torch import Tensor

from nodebits import ops
from nodebits.core.own_scale import OwnScale
from nodebits.ops import Edges, Epilogue, Own, Sink, Source


def given(name: str, rows: int, cols: int, bits: int, relu: bool) -> tuple[Any, ...]:
    """Arguments of the operator over 40 sources; a node has 0 to 5 edges, the last hundreds."""
    degree = torch.randint(0, 6, (rows,))
    degree[-1:] = 300
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degree.cumsum(0)])
    edges = Edges(indptr, torch.randint(40, (int(indptr[-1]),), dtype=torch.int32))
    source = Source(
        ops.pack(torch.randint(1 << bits, (40, cols), dtype=torch.uint8), bits), bits, cols
    )
    offset = torch.full((cols,), 1.5)
    epilogue = Epilogue(torch.rand(cols) + 0.1, offset, degree.float().view(-1, 1))
    sums = name == "fused_spmm"
    between = Own(acc_scale=torch.randint(1, 9, (rows,), dtype=torch.int32)) if sums else False
    return edges, source, between, epilogue, Sink(relu)


@pytest.mark.parametrize("name", ["fused_spmm", "fused_extremum"])
@pytest.mark.parametrize(("cols", "bits"), [(24, 4), (128, 8), (300, 8), (520, 2)])
@pytest.mark.parametrize(("rows", "relu"), [(1, False), (150, True), (700, False)])
def test_packed_as_they_are_made(name: str, cols: int, bits: int, rows: int, relu: bool) -> None:
    """Where the floats are read again, they are made whole."""
    operator = getattr(ops, name)
    args = given(name, rows, cols, bits, relu)
    (floats,) = reference(operator, *args)
    signed = not relu
    codes = OwnScale(8, signed)
    scale = codes.scale(floats)
    zero = torch.full_like(scale, codes.zero_point)
    expected = reference(ops.quantize_pack, floats, scale, zero, 0, 8), scale

    def packed(again: bool) -> list[Tensor]:
        case = Case()
        made = case.step(name, *operator.flat(args))
        own = case.step("pack_own", made, 8, signed, outs=2)
        more = [case.step("relu", made)] if again else []
        return case.everywhere(*own, *more)[:2]

    for again in (False, True):
        for got, want in zip(packed(again), expected, strict=True):
            assert same(got, want)
