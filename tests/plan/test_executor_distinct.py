"""Rows of edges of which few differ: each once, and the row of every edge."""

from __future__ import annotations

import pytest
import torch
from executor_case import Case, same
from torch import Tensor

from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.graph.edge_table import LEAST_SHARED, MOST_ROWS, distinct_rows

# Kinds of rows, edges, columns; two threads share the last ones.
SIZES = [
    (4, 16, 3), (4, 15, 3), (1, 9, 1), (256, 2000, 7), (257, 2000, 7), (256, 90_000, 8),
    (257, 90_000, 9), (3, 0, 4), (3, 40, 0), (30, 60_000, 130),
]  # fmt: skip


def features(kinds: int, edges: int, columns: int, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    # Every kind is there, the last ones late.
    which = torch.cat([torch.randint(0, kinds, (edges,), generator=made), torch.arange(kinds)])
    return torch.randn(kinds, columns, generator=made)[which[-edges:] if edges else which[:0]]


def places(edges: int, seed: int = 1) -> Tensor:
    return torch.randperm(edges, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kinds", "edges", "columns"), SIZES)
@pytest.mark.parametrize("form", ["as they stand", "by place", "ordered", "with loops"])
def test_rows_and_places(kinds: int, edges: int, columns: int, form: str) -> None:
    given = features(kinds, edges, columns)
    more = torch.randn(5, columns) if form == "with loops" else None
    perm = None if form == "as they stand" else places(edges + (0 if more is None else 5))
    expected = distinct_rows(given, perm, form == "ordered", more)
    case = Case()
    args = [case.input(given), None if perm is None else case.input(perm), form == "ordered"]
    args += [] if more is None else [case.input(more)]
    refs = case.step("distinct_rows", *args, outs=3)
    for got, want in zip(case.everywhere(*refs), expected, strict=True):
        assert same(got, want)
    # The rows are those of the edges, whichever way.
    rows, order, _ = expected
    whole = given if more is None else torch.cat([given, more])
    assert torch.equal(rows[order], whole if perm is None else whole[perm])
    few = 0 < kinds <= min(MOST_ROWS, edges // LEAST_SHARED) and columns > 0
    assert rows.size(0) == (kinds if few else edges) + (0 if more is None else 5)


def test_bits_tell_rows_apart() -> None:
    given = torch.tensor([[0.0], [-0.0], [3.0], [0.0]]).repeat(4, 1)
    case = Case()
    refs = case.step("distinct_rows", case.input(given), None, False, outs=3)
    rows, order, _ = case.everywhere(*refs)
    assert rows.size(0) == 3 and rows.signbit()[:2].view(-1).tolist() == [False, True]
    assert order.tolist() == [0, 1, 2, 0] * 4


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_rows_that_are_refused_stay_where_they_are(wrong: float) -> None:
    given, perm = features(4, 50, 3), places(50)
    given[7, 1] = wrong
    case = Case()
    refs = case.step("distinct_rows", case.input(given), case.input(perm), False, outs=3)
    expected = distinct_rows(given, perm, False)
    for got, want in zip(case.everywhere(*refs), expected, strict=True):
        assert same(got, want)
    assert same(expected[0], given)


def test_rows_of_one_number_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    given = features(4, 50, 3)
    expected = distinct_rows(given, None, False)
    monkeypatch.setattr("nodebits.graph.edge_table._ODD", 0)
    assert all(map(same, distinct_rows(given, None, False), expected))
    assert expected[0].size(0) == 4


def test_only_what_is_wanted_is_made() -> None:
    given, perm = features(4, 50, 3), places(50)
    expected = distinct_rows(given, perm, False)
    for at in range(3):
        case = Case()
        refs = case.step("distinct_rows", case.input(given), case.input(perm), False, outs=3)
        (made,) = case.everywhere(refs[at])
        assert same(made, expected[at])


def test_a_view_of_a_table_keeps_its_memory() -> None:
    given, perm = features(4, 64, 4), places(64)
    case = Case()
    # Made here, so that its memory is the plan's own.
    value = case.step("add", case.input(given), 1.0)
    rows, order, _ = case.step("distinct_rows", value, case.input(perm), False, outs=3)
    view = case.step("view", rows, [-1, 2, 2])
    other = case.step("clone", case.input(torch.full((4, 4), 7.0)))
    out = case.step("add", view, 0.5)
    expected = distinct_rows(given + 1.0, perm, False)
    found = case.everywhere(view, out, other, order)
    assert same(found[0], expected[0].view(-1, 2, 2)) and same(found[3], expected[1])
    assert same(found[1], expected[0].view(-1, 2, 2) + 0.5)
    (found_alone,) = case.everywhere(out)
    assert same(found_alone, found[1])


def test_what_does_not_fit_is_refused() -> None:
    case = Case()
    given = case.input(features(4, 50, 3))
    outside = case.step("distinct_rows", given, case.input(places(51)), False, outs=3)
    with pytest.raises(NodeIndexError, match="perm"):
        case.run(*outside)
    case = Case()
    given, more = case.input(features(4, 50, 3)), case.input(torch.randn(5, 4))
    other = case.step("distinct_rows", given, case.input(places(55)), False, more, outs=3)
    with pytest.raises(ShapeError, match="more"):
        case.run(*other)
