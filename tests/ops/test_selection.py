"""Rows of tables by number: those of torch, on every level, whatever they hold."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import generator

from nodebits import ops
from nodebits.core.errors import NodeIndexError
from nodebits.ops.selection import take_lists, take_rows

LEVELS = ["reference", next(name for name in reversed(ops.available_isas()))]
INDEX = torch.tensor([4, 0, 0, 39, 7, *range(40)])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (4,), (8,), (5, 3), (64,), (300,), (0,)])
def test_rows_are_torchs(level: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    table = torch.randint(0, 200, (40, *shape), generator=generator(3)).to(dtype)
    with ops.force_isa(level):
        assert torch.equal(take_rows(table, INDEX), table[INDEX])
        assert torch.equal(take_rows(table, INDEX[:0]), table[:0])


@pytest.mark.parametrize("level", LEVELS)
def test_rows_of_views(level: str) -> None:
    table = torch.randn(80, 40, dtype=torch.complex64, generator=generator(0))
    with ops.force_isa(level):
        for view in (table[::2], table.t(), table.conj(), table.imag.neg(), table.real[:, 3:9]):
            assert torch.equal(take_rows(view, INDEX), view[INDEX])
        assert not take_rows(torch.ones(40, 2, requires_grad=True), INDEX).requires_grad


@pytest.mark.parametrize("level", LEVELS)
def test_rows_of_different_lengths(level: str) -> None:
    counts = torch.tensor([3, 0, 700, 1] * 10)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    total = int(indptr[-1])
    tables = torch.arange(total, dtype=torch.int32), torch.randint(0, 9, (total,)).byte()
    rows = [torch.arange(int(indptr[i]), int(indptr[i + 1])) for i in INDEX]
    with ops.force_isa(level):
        taken, *made = take_lists(indptr, INDEX, *tables)
        assert torch.equal(taken.diff(), counts[INDEX]) and int(taken[0]) == 0
        for table, one in zip(tables, made, strict=True):
            assert torch.equal(one, table[torch.cat(rows)])
        taken, none = take_lists(indptr, INDEX[:0], tables[0])
        assert taken.tolist() == [0] and not none.numel() and none.dtype == torch.int32


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [-1, 40, 2**62])
def test_what_is_no_row(level: str, bad: int) -> None:
    index = torch.tensor([0, bad])
    with ops.force_isa(level):
        with pytest.raises(NodeIndexError, match=rf"index\[1\] is {bad}, outside \[0, 40\)"):
            take_rows(torch.ones(40, 3), index)
        with pytest.raises(NodeIndexError, match=rf"index\[1\] is {bad}"):
            take_lists(torch.arange(41), index, torch.ones(40))
