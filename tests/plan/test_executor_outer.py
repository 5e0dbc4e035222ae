"""Sums of outer products: results as they are, through quantizers, and packed as they are made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, same
from torch import Tensor

from nodebits import ops
from nodebits.core.own_scale import OwnScale
from nodebits.ops import Edges, Epilogue, Other, Output, Sink, Source

SOURCES, COLS, HEADS = 50, 30, 9


def given(rows: int, sink: Sink, low: int = 0) -> tuple[Any, ...]:
    """Arguments of the operator; codes of sources are ``low`` to 255."""
    degree = torch.randint(0, 6, (rows,))
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degree.cumsum(0)])
    edges = int(indptr[-1])
    width = (HEADS + 1) * COLS
    return (
        Edges(indptr, torch.randint(SOURCES, (edges,), dtype=torch.int32)),
        Source(torch.randint(low, 256, (SOURCES, COLS), dtype=torch.uint8), 8, COLS),
        Other(torch.randint(256, (edges, HEADS), dtype=torch.uint8), 8, HEADS),
        torch.randperm(edges),
        torch.full((COLS,), low, dtype=torch.int32),
        torch.full((HEADS,), 100, dtype=torch.int32),
        True,
        Epilogue(torch.rand(width) + 0.1, None, None, torch.rand(rows, 1) + 0.1),
        sink,
    )


def step(case: Case, args: tuple[Any, ...], outs: int = 1) -> Any:
    return case.step("fused_outer_sum", *ops.fused_outer_sum.flat(args), outs=outs)


def test_floats_and_codes() -> None:
    one = torch.ones(1)
    for sink in (Sink(), Sink(True, [Output(one * 900, one * 3, 4), Output(one * 99, one, 8)])):
        case, args = Case(), given(70, sink)
        made = step(case, args, max(len(sink.outputs), 1))
        found = case.everywhere(*([made] if isinstance(made, str) else made))
        for got, want in zip(found, reference(ops.fused_outer_sum, *args), strict=True):
            assert same(got, want)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rows", [0, 3, 2000])
def test_packed_as_they_are_made(rows: int, signed: bool) -> None:
    """More rows than are packed at a time; where the sums are read again, they are made whole."""
    args = given(rows, Sink(), 0 if signed else 90)
    (floats,) = reference(ops.fused_outer_sum, *args)
    codes = OwnScale(4, signed)
    scale = codes.scale(floats)
    zero = torch.full_like(scale, codes.zero_point)
    expected = reference(ops.quantize_pack, floats, scale, zero, 0, 4), scale

    def packed(again: bool) -> list[Tensor]:
        case = Case()
        sums = step(case, args)
        own = case.step("pack_own", sums, 4, signed, outs=2)
        more = [case.step("relu", sums)] if again else []
        return case.everywhere(*own, *more)[:2]

    for again in (False, True):
        for got, want in zip(packed(again), expected, strict=True):
            assert same(got, want)
