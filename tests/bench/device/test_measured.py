"""What a card is asked to do, done by the CPU: peers of cards, molecules, rows of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits import ops
from nodebits.bench.device import peers
from nodebits.bench.device.host_rows import measure_host_rows
from nodebits.bench.device.molecules import ATOMS, measure_molecules, molecules
from nodebits.bench.speed.aggregate import measure_aggregate
from nodebits.bench.speed.dense import measure_dense
from nodebits.bench.speed.forward import measure_forward
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.speed.models import Sizes
from nodebits.bench.speed.rows import Candidate, Protocol, Row, measure
from nodebits.bench.speed.steps import measure_steps
from nodebits.core.errors import UnknownNameError
from nodebits.graph import Graph

# Peers of a card, on the device of the tests.
AS_CARD = Protocol(repeats=1, warmup=0, card=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute and is torch's own."""
    monkeypatch.setattr(torch, "compile", lambda model: model)


@pytest.fixture
def bench(tmp_path: Path) -> BenchGraph:
    return load_graph("random:60:300", cache=tmp_path)


def measured(rows: list[Row]) -> dict[str, Row]:
    """By name; ours must have run, and a peer that has not says why."""
    found = {row.impl: row for row in rows}
    assert len(found) == len(rows)
    for row in rows:
        assert row.median_s is not None or (row.kind != "nodebits" and "skipped" in row.note)
    return found


def test_sums(bench: BenchGraph) -> None:
    rows = measure_aggregate("g", bench.graph, (4,), 16, AS_CARD)
    plain = measured([row for row in rows if row.op == "aggregate"])
    assert {"torch.sparse CSR float16", "torch.sparse CSR bfloat16"} <= plain.keys()
    assert {"nodebits u4", "nodebits u4, packed result"} <= plain.keys()
    for kernel in peers.segment_sums(bench.graph):
        assert {f"{kernel} {t}" for t in ("float32", "float16", "bfloat16")} <= plain.keys()
    assert not any("quantized" in name for name in plain)  # torch has these on the CPU alone
    weighted = measured([row for row in rows if row.op == "aggregate_weighted"])
    assert "nodebits u4, u8 weights" in weighted and "torch.sparse CSR float16" in weighted


def test_a_wrong_sum_is_not_timed(bench: BenchGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Any = ops.spmm
    calls: list[int] = []

    def wrong_first(*given: object) -> torch.Tensor:
        calls.append(1)
        found: torch.Tensor = right(*given)
        return found + (len(calls) == 1)

    monkeypatch.setattr(ops, "spmm", wrong_first)
    with pytest.raises(RuntimeError, match="4 bits differ from those of the CPU"):
        measure_aggregate("g", bench.graph, (4,), 16, AS_CARD, weighted=False)


def test_products() -> None:
    rows = measured(measure_dense((20, 30, 10), (4,), AS_CARD))
    assert {"torch linear float16", "torch linear bfloat16", "nodebits u4 x s4"} <= rows.keys()
    assert not any("quantized" in name for name in rows)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_forwards(bench: BenchGraph) -> None:
    rows = measured(measure_forward(bench, ("gcn",), (4,), Sizes(8), AS_CARD))
    assert {"PyG float16", "PyG compiled float32", "PyG compiled bfloat16"} <= rows.keys()
    assert {"nodebits u4, float input", "nodebits u4, packed input"} <= rows.keys()
    assert "PyG float32" not in rows  # PyG, edge_index says that


def test_steps(bench: BenchGraph) -> None:
    rows = measured(measure_steps(bench, ("gcn",), (4,), Sizes(8), AS_CARD))
    assert list(rows) == [
        "PyG float", "PyG bfloat16 by autocast", "nodebits QAT 4", "nodebits Degree-Quant 4",
    ]  # fmt: skip


def test_molecules_are_graphs_of_their_own() -> None:
    x, edge_index, batch = molecules(20)
    assert x.shape == (batch.numel(), ATOMS) and torch.equal(x.sum(1), torch.ones(len(x)))
    assert bool((batch[edge_index[0]] == batch[edge_index[1]]).all())
    sizes = batch.bincount()
    assert len(sizes) == 20 and 12 <= int(sizes.min()) and int(sizes.max()) < 38
    both = torch.cat([edge_index, edge_index.flip(0)], 1).unique(dim=1)
    assert both.size(1) == edge_index.size(1)  # both ways, each once
    assert int(edge_index[0].bincount(minlength=len(x)).min()) >= 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_of_molecules() -> None:
    rows = measure_molecules(("gcn", "gin"), 3, 8, (4,), AS_CARD)
    assert {row.op for row in rows} == {"gcn, 4 layers of 8", "gin, 4 layers of 8"}
    for name in ("gcn", "gin"):
        own = measured([row for row in rows if row.op.startswith(name)])
        assert {"PyG float32", "PyG compiled float16", "nodebits u4"} <= own.keys()
    with pytest.raises(UnknownNameError, match="gat"):
        measure_molecules(("gat",), 3, 8, (4,), AS_CARD)


def test_rows_of_the_host() -> None:
    rows = measured(measure_host_rows((50, 16), 20, (8, 1), AS_CARD))
    assert list(rows) == [
        "float rows of the host, copied", "nodebits u8 of the host", "nodebits u1 of the host",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peers_say_the_same(bench: BenchGraph) -> None:
    """Those that run here, against plain sums of whole numbers, which halves hold exactly."""
    graph = bench.graph
    x = torch.randint(-1, 2, (graph.num_src, 8), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.zeros(graph.num_dst, 8).index_add_(0, graph.rows, x[graph.indices.long()])
    ran = []
    for peer in peers.sum_peers(graph, x, None):
        try:
            found = peer.build()()
        except (NotImplementedError, ImportError):
            continue
        assert isinstance(found, torch.Tensor)
        ran.append(peer.impl)
        assert torch.equal(found.float(), expected), peer.impl
    assert "torch.segment_reduce bfloat16" in ran
    model = torch.nn.Linear(8, 3)
    for peer in peers.model_peers(model, x):
        found = peer.build()()
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(found.float(), model(x), rtol=0, atol=0.05)


def test_segments_are_those_of_neighbours() -> None:
    graph = Graph(torch.tensor([0, 2, 2, 3]), torch.tensor([1, 2, 0], dtype=torch.int32), 3)
    x = torch.tensor([[1.0], [2.0], [4.0]])
    found = peers.segment_sums(graph)["torch.segment_reduce"](x)()
    assert torch.equal(found, torch.tensor([[6.0], [0.0], [1.0]]))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ImportError("no lib"), TypeError("no half"), ValueError("no")])
def test_a_peer_that_refuses_when_called_is_a_row_with_its_reason(error: Exception) -> None:
    def refuse() -> object:
        raise error

    (row,) = measure("op", "g", [Candidate("peer", "float", lambda: refuse, 16)], AS_CARD)
    assert row.note == f"skipped: {type(error).__name__}: {error}" and row.median_s is None
    ours = Candidate("nodebits u4", "nodebits", lambda: refuse, 4)
    with pytest.raises(type(error)):
        measure("op", "g", [ours], AS_CARD)
