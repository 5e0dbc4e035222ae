"""Loops of fixed sizes: the rows of all nodes but the last are those of a graph of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nodebits.core.context import opened
from nodebits.core.outcomes import Outcomes
from nodebits.graph import Graph
from nodebits.graph.loops import EDGE_INDEX, MATRIX, SPARSE_TENSOR
from nodebits.plan.device.steps import Steps, rows_of

STEPS = Steps(torch.device("cpu"))
# Twice a loop of node 1, one of node 2, a double edge; node 5 is padding, and in a ring with 6.
EDGES = torch.tensor([[0, 1, 1, 3, 2, 0, 0, 6, 5], [1, 1, 1, 0, 2, 3, 3, 5, 6]])
ROWS = 7
WEIGHT = torch.tensor([0.5, 2.0, 3.0, 0.25, 4.0, 1.0, 8.0, 0.0, 0.0])


def rows(indptr: Tensor, indices: Tensor, *more: Tensor) -> list[list[list[float]]]:
    """Sources, and weights where there are, of every node that is no padding."""
    ends = indptr.tolist()
    return [[t[ends[i] : ends[i + 1]].tolist() for t in (indices, *more)] for i in range(5)]


@pytest.mark.parametrize("form", [EDGE_INDEX, MATRIX, SPARSE_TENSOR])
@pytest.mark.parametrize("fill", [1.0, 2.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_with_weights(form: str, fill: float, weighted: bool) -> None:
    indptr, indices, perm = rows_of(EDGES[0], EDGES[1], ROWS, ROWS)
    weight = WEIGHT[perm] if weighted else None
    made = Graph(indptr, indices, ROWS, None, weight, form).with_self_loops(ROWS, fill)
    ones = torch.ones(made.num_edges)
    expected = rows(made.indptr, made.indices, ones if weight is None else made.edge_weight)
    if weight is None and fill != 1.0:
        assert made.edge_weight is not None
        expected = rows(made.indptr, made.indices, made.edge_weight)
    with opened(outcomes=Outcomes(fixed=True)):
        found = STEPS.meaning("self_loops_weighted")(indptr, indices, weight, ROWS, fill, form)
    assert found[1].numel() == EDGES.size(1) + ROWS
    assert rows(*found) == expected


@pytest.mark.parametrize("form", [EDGE_INDEX, MATRIX])
def test_without(form: str) -> None:
    indptr, indices, _ = rows_of(EDGES[0], EDGES[1], ROWS, ROWS)
    made = Graph(indptr, indices, ROWS, None, None, form).with_self_loops(ROWS)
    for fixed in (True, False):
        with opened(outcomes=Outcomes(fixed=fixed)):
            found = STEPS.meaning("self_loops")(indptr, indices, None, ROWS, form)
        assert rows(*found) == rows(made.indptr, made.indices)
    with opened(outcomes=Outcomes(fixed=True)):
        found = STEPS.meaning("self_loops")(indptr[:1], indices[:0], None, 0)
    assert found[0].tolist() == [0]
