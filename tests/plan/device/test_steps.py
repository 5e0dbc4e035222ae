"""Steps that have a meaning of their own on devices: that of the CPU's, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from no_waiting import no_waiting
from torch import Tensor

from nodebits.core.context import opened
from nodebits.core.errors import PlanRefused
from nodebits.core.outcomes import Outcomes
from nodebits.graph import as_graph
from nodebits.plan.device.backends import backend_of
from nodebits.plan.device.steps import Steps
from nodebits.plan.reference import meaning
from packed_models import small_graph

CPU = torch.device("cpu")
X, EDGES = small_graph()
GRAPH = as_graph(EDGES, len(X))
ROWS = GRAPH.indptr, GRAPH.indices
INDEX = torch.randint(0, 9, (len(X),), generator=torch.Generator().manual_seed(3))
TABLE = torch.zeros(4, 3, dtype=torch.uint8), torch.ones(4), 8, 3, False
ANY = Outcomes()

CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "rows": ("csr", (EDGES, len(X), len(X))),
    "rows without edges": ("csr", (EDGES[:, :0], len(X), len(X))),
    "edges": ("edge_index", (*ROWS, GRAPH.perm)),
    "out-degrees": ("source_degree", (GRAPH.indices, len(X))),
    "weighted out-degrees": ("source_degree", (GRAPH.indices, len(X), torch.rand(EDGES.size(1)))),
    "a fingerprint": ("fingerprint", (*ROWS, len(X))),
    "a sum": ("segment_sum", (X, INDEX, 9)),
    "a sum of vectors": ("segment_sum", (X[:, 0].contiguous(), INDEX, 11)),
    "a sum of many rows": ("segment_sum", (X.repeat(50, 1), INDEX.repeat(50), 9)),
    "a sum of nothing": ("segment_sum", (X[:0], INDEX[:0], 3)),
    "largest values": ("segment_max", (X, INDEX, 9)),
    "smallest values": ("segment_min", (X, INDEX, 9)),
    "rows by number": ("index_select", (X, 0, INDEX)),
    "columns by number": ("index_select", (X, 1, INDEX)),
    "a table's rows": ("embedding", (INDEX % 4, *TABLE)),
    "numbers": ("arange", (5, "int32")),
    "sums around a zero point": ("centred", (INDEX.view(-1, 1).int(), INDEX.view(-1, 1).int(), 8)),
    "a value": ("full", ([2, 3], 0.5)),
    "a whole value": ("full", ([2, 3], -7, "int64")),
    "own nodes": ("own_nodes", ("a", torch.tensor([GRAPH.fingerprint]), GRAPH.fingerprint, 3, 3)),
    "or others": ("own_nodes_or", ("a", torch.tensor([1]), 1, 3, torch.tensor([2, 2, 2]))),
    "others": ("own_nodes_or", ("a", torch.tensor([1]), 2, 3, torch.tensor([2, 2, 2]))),
    "of another size": ("own_nodes_or", ("a", torch.tensor([1]), 1, 2, torch.tensor([2, 2, 2]))),
}


def on_device(op: str, args: tuple[Any, ...], outcomes: Outcomes = ANY) -> Any:
    with opened(outcomes=outcomes):
        return Steps(CPU).meaning(op)(*args)


@pytest.mark.parametrize("name", CALLS)
def test_the_meaning_of_the_cpu(name: str) -> None:
    op, args = CALLS[name]
    expected, outcomes = meaning(op)(*args), Outcomes()
    with no_waiting():
        found = on_device(op, args, outcomes)
    for mine, other in zip(
        *((one,) if isinstance(one, Tensor) else one for one in (found, expected)), strict=True
    ):
        assert mine.dtype == other.dtype and torch.equal(mine, other)
    assert not outcomes.any(CPU)


WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "an edge to no node": ("csr", (EDGES, len(X) - 5, len(X))),
    "an edge from below": ("csr", (EDGES - 1, len(X), len(X))),
    "a graph that is not there": ("segment_sum", (X, INDEX, 8)),
    "one below zero": ("segment_max", (X, INDEX - 1, 9)),
    "weights below zero": ("source_degree", (GRAPH.indices, len(X), -torch.rand(EDGES.size(1)))),
    "a large degree": ("check_degree", (GRAPH.indptr, 10)),
    "not a number": ("check_finite", (X / 0,)),
    "a row that is not there": ("index_select", (X, 0, INDEX + len(X))),
    "an id that is not there": ("embedding", (INDEX + 3, *TABLE)),
    "codes of weights": ("edge_codes", (-torch.rand(EDGES.size(1)), GRAPH.indptr, 4)),
    "codes of weights of one sign": (
        "signed_edge_codes",
        (torch.ones(EDGES.size(1)), GRAPH.indptr, 4),
    ),
    "another graph": ("own_nodes", ("a", torch.tensor([7]), 8, 3, 3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_noted(name: str) -> None:
    outcomes = Outcomes()
    on_device(*WRONG[name], outcomes)
    assert outcomes.any(CPU)


def test_degrees_of_padding_may_be_any() -> None:
    largest = int(GRAPH.indptr.diff().argmax())
    for real in (largest, largest + 1):
        outcomes = Outcomes(True, torch.tensor([real]))
        on_device("check_degree", (GRAPH.indptr, int(GRAPH.indptr.diff().max()) - 1), outcomes)
        assert bool(outcomes.any(CPU)) is (real > largest)


def test_sizes_alone_tell_what_is_refused() -> None:
    with pytest.raises(PlanRefused, match="no nodes"):
        on_device("csr", (EDGES, 0, len(X)))
    with pytest.raises(PlanRefused, match="another graph"):
        on_device("own_nodes", ("a", None, 8, 3, 4))


def test_what_computes_a_step() -> None:
    there = torch.device("meta")
    assert backend_of({"op": "spmm"}, CPU) == "kernel"
    assert backend_of({"op": "exp", "approx": True}, CPU) == "torch"
    assert backend_of({"op": "module", "args": []}, there) == "module"
    assert backend_of({"op": "add"}, there) == "torch"
    assert backend_of({"op": "spmm"}, there) == "definition in torch"
