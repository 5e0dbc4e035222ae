"""Packed features that stay in the host's memory; the device is one without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nodebits
from host_memory import HostMemory
from nodebits.core.errors import ConfigError
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import as_graph, sample_neighbors
from nodebits.ops import host
from packed_models import NODES, Case, make_case, small_graph

META = torch.device("meta")
pytestmark = pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning")
FORMS: dict[str, dict[str, Any]] = {
    "dense": {"name": "sage"},
    "sparse": {"features": 400},
    "float": {"overrides": {"convs.0.lin.input": 32}},
    "width per node": {"method": "a2q"},
    "width per degree": {"method": "sgquant", "splits": (4, 8), "degree_bits": (6, 4, 3)},
}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> HostMemory:
    made = HostMemory()
    monkeypatch.setattr(host, "memory_for", lambda kind: made if kind == "meta" else None)
    return made


def ready(case: Case) -> PackedInput:
    return case.packed.pack_input(case.x, edge_index=case.edge_index)


def tensors(x: PackedInput) -> dict[str, list[Tensor]]:
    """What rows hold, by site."""
    made = {}
    for name, rows in x.rows.items():
        held = [v for v in vars(rows.data).values() if isinstance(v, Tensor)]
        if rows.layout is not None:
            held += [rows.layout.widths, rows.layout.order, rows.layout.position]
        made[name] = held
    return made


@pytest.mark.parametrize("form", FORMS)
def test_what_is_per_row_is_pinned_and_the_rest_moves(form: str, memory: HostMemory) -> None:
    features = ready(make_case(**FORMS[form]))
    placed = features.on_host("meta")
    assert placed.shape == features.shape and placed.reader == META
    for (name, before), after in zip(
        tensors(features).items(), tensors(placed).values(), strict=True
    ):
        assert all(memory.readable(t) for t in after if t.numel())
        assert all(map(torch.equal, before, after))
        affine = placed.rows[name].affine
        assert affine.scale.device.type == ("cpu" if affine.axis == 0 else "meta")
    again, count = placed.on_host("meta"), len(memory.pinned)
    assert len(memory.pinned) == count and again.shape == placed.shape


def test_rows_of_two_readers_are_pinned_once(memory: HostMemory, tmp_path: Path) -> None:
    x, path = torch.rand(20, 8), tmp_path / "x"
    nodebits.pack_features(x, path, nodebits.Packing(bits=4, granularity="row"))
    rows = nodebits.PackedFeatures(path).rows
    PackedInput({"one": rows, "two": rows}, (20, 8)).on_host("meta")
    assert len(memory.pinned) == 2  # codes and scales


def test_the_cpu_needs_no_copy() -> None:
    case = make_case("sage")
    features = ready(case)
    kept = features.on_host("cpu")
    assert all(kept.rows[name] is rows for name, rows in features.rows.items())
    asked = case.edge_index, [3, 0], [4, 4]
    found = case.packed.predict_nodes(asked[0], kept, *asked[1:], seed=1)
    assert torch.equal(found, case.packed.predict_nodes(asked[0], features, *asked[1:], seed=1))
    assert torch.equal(
        case.packed.predict(kept, case.edge_index), case.packed.predict(case.x, case.edge_index)
    )


def test_a_model_on_another_device_is_named(memory: HostMemory) -> None:
    case = make_case("sage")
    features = ready(case).on_host("meta")
    with pytest.raises(ConfigError, match=r"read by 'meta', but the model is on 'cpu': move it"):
        case.packed.predict_nodes(case.edge_index, features, [3], [4, 4])


def test_a_forward_over_all_nodes_is_refused(memory: HostMemory) -> None:
    case = make_case("sage")
    with pytest.raises(ConfigError, match="from which meta takes the rows that predict_nodes"):
        case.packed.predict(ready(case).on_host("meta"), case.edge_index)


def test_a_reordered_graph_is_refused() -> None:
    case = make_case("gcn")
    graph = case.packed.prepare_graph(case.edge_index, NODES, reorder=True)
    with pytest.raises(ConfigError, match="reordered graph"):
        case.packed.pack_input(case.x, edge_index=graph).on_host("cpu")


def test_a_sample_moves_as_a_whole() -> None:
    _, edge_index = small_graph()
    graph = as_graph(edge_index, NODES, NODES, torch.rand(edge_index.size(1)))
    sample = sample_neighbors(graph, [3, 5], [2, 2], seed=0)
    moved = sample.to(META)
    held = moved.nodes, moved.edges, moved.seeds, moved.graph.indices, moved.graph.edge_weight
    assert all(t is not None and t.device == META for t in held)
    assert moved.reached == sample.reached and moved.graph.num_src == sample.graph.num_src
    assert sample.to(torch.device("cpu")) is sample
