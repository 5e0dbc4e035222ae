"""Rows that grow and shrink are lists of Python's, one per row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops.changing import ChangingRows, add_difference, rewrite_rows

ROWS = 6
changes = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5)),
    max_size=12,
)


def made(rows: list[list[tuple[int, float]]], weighted: bool) -> ChangingRows:
    indptr = torch.tensor([0, *np.cumsum([len(row) for row in rows])])
    flat = [entry for row in rows for entry in row]
    weight = torch.tensor([w for _, w in flat]) if weighted else None
    return ChangingRows(indptr, torch.tensor([e for e, _ in flat], dtype=torch.int32), weight)


def pairs(edges: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    both = torch.tensor(edges, dtype=torch.int64).view(-1, 2)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(stream=changes, weighted=st.booleans())
def test_lists(stream: list[tuple[bool, list[tuple[int, int]]]], weighted: bool) -> None:
    lists = [[(int(e), e / 8)] for e in range(ROWS)]
    rows = made(lists, weighted)
    number = 0
    for adds, edges in stream:
        if adds:
            weight = torch.arange(number, number + len(edges)) / 4
            number += len(edges)
            rows.append(*pairs(edges), weight if weighted else None)
            for (row, entry), w in zip(edges, weight.tolist(), strict=True):
                lists[row].append((entry, w))
            continue
        left = [list(row) for row in lists]
        missing = -1
        for i, (row, entry) in enumerate(edges):
            places = [at for at, (e, _) in enumerate(left[row]) if e == entry]
            if not places:
                missing = i
                break
            del left[row][places[-1]]
        assert rows.missing(*pairs(edges)) == missing
        assert rows.remove(*pairs(edges)) == missing
        lists = lists if missing >= 0 else left
    asked = torch.tensor([4, 0, 4, 1])
    indptr, entries, weights = rows.gather(asked)
    expected = [entry for row in asked.tolist() for entry in lists[row]]
    assert entries.tolist() == [e for e, _ in expected]
    assert weights is None if not weighted else weights.tolist() == [w for _, w in expected]
    assert indptr.diff().tolist() == [len(lists[row]) for row in asked.tolist()]
    loops = [[e for e, _ in lists[row] if e != row] + [row] for row in asked.tolist()]
    assert rows.gather(asked, True)[1].tolist() == [e for row in loops for e in row]
    assert rows.counts(asked, True).tolist() == [len(row) for row in loops]
    assert rows.num_entries == sum(map(len, lists))


def test_rows_without_entries_have_weights_all_the_same() -> None:
    rows = made([[], [], []], True)
    row, entry = pairs([(1, 2)])
    with pytest.raises(ShapeError, match="weight"):
        rows.append(row, entry)
    rows.append(row, entry, torch.tensor([0.5]))
    found = rows.gather(torch.tensor([0, 1]))[2]
    assert found is not None
    assert found.tolist() == [0.5]
    plain = made([[], [], []], False)
    with pytest.raises(ShapeError, match="weight"):
        plain.append(row, entry, torch.tensor([0.5]))


@pytest.mark.parametrize("loops", [False, True])
def test_a_change_of_sums(loops: bool) -> None:
    """Summing what a change says gives the sums of the new rows."""
    generator = torch.Generator().manual_seed(0)
    nodes = 20
    old, new = (torch.randint(0, 9, (nodes,), generator=generator) for _ in range(2))
    changed = torch.tensor([3, 7, 11])
    new = old.clone().index_copy(0, changed, new[changed])
    edges = torch.randint(0, nodes, (2, 90), generator=generator)
    after = torch.cat([edges[:, 10:], torch.randint(0, nodes, (2, 7), generator=generator)], 1)
    added, removed = after[:, 80:], edges[:, :10]

    def sums(pairs: Tensor, values: Tensor) -> Tensor:
        if loops:
            pairs = torch.cat([pairs[:, pairs[0] != pairs[1]], torch.arange(nodes).repeat(2, 1)], 1)
        return torch.zeros(nodes, dtype=torch.int64).index_add(0, pairs[1], values[pairs[0]])

    order = after[0].argsort(stable=True)
    indptr = torch.cat(
        [torch.zeros(1, dtype=torch.int64), after[0].bincount(minlength=nodes).cumsum(0)]
    )
    rows = ChangingRows(indptr, after[1][order].int())
    if loops:
        added, removed = (one[:, one[0] != one[1]] for one in (added, removed))
    found = rows.change(changed, loops, added, removed)
    table = torch.cat([new[changed], old[changed], old[added[0]], old[removed[0]]])
    difference = torch.zeros(nodes, dtype=torch.int64)
    for t, (a, b, c, d) in enumerate(
        zip(found.plus_indptr[:-1], found.plus_indptr[1:], found.minus_indptr[:-1],
            found.minus_indptr[1:], strict=True)
    ):  # fmt: skip
        more, less = table[found.plus[a:b].long()].sum(), table[found.minus[c:d].long()].sum()
        difference[found.targets[t]] = more - less
    assert torch.equal(sums(edges, old) + difference, sums(after, new))
    assert found.targets.numel() == found.targets.unique().numel()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("keep", [False, True])
def test_rewritten_rows(dtype: torch.dtype, keep: bool) -> None:
    table = torch.arange(24).view(8, 3).to(dtype)
    before = table.clone()
    index = torch.tensor([6, 1, 3, 7])
    rows = table[index].clone()
    rows[1, 2] += 1
    written, old = rewrite_rows(table, index, rows, 7, keep)
    assert written.tolist() == [1, 7]
    assert torch.equal(table[index], rows)
    assert old is None if not keep else torch.equal(old, before[[1, 7]])


def test_a_difference_passes_int32() -> None:
    table = torch.tensor([[2**31 - 5], [0], [3]], dtype=torch.int32)
    plus = torch.tensor([[10], [1]], dtype=torch.int32)
    found = add_difference(table, torch.tensor([0, 2]), plus, torch.tensor([[12], [4]]).int())
    assert found.tolist() == [[2**31 - 7], [0]] == table[[0, 2]].tolist()


def test_what_is_refused() -> None:
    rows = made([[(0, 1.0)], []], False)
    with pytest.raises(ShapeError, match="row must be below"):
        rows.append(torch.tensor([2]), torch.tensor([0]))
    with pytest.raises(ShapeError, match="weight must be given where"):
        rows.append(torch.tensor([1]), torch.tensor([0]), torch.ones(1))
    with pytest.raises(ShapeError, match="index must be below"):
        rewrite_rows(torch.zeros(2, 2), torch.tensor([5]), torch.zeros(1, 2), 2)
    assert rows.distinct([]).tolist() == []
    assert rows.distinct([torch.tensor([1, 0, 1]), torch.tensor([0])]).tolist() == [1, 0]
