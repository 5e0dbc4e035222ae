"""Packed models on reordered graphs: the user's order outside, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nodebits.core.errors import ConfigError, NonFiniteError, ShapeError
from nodebits.engine.sites import PerNodeRows
from nodebits.graph import ReorderedGraph, as_graph
from nodebits.methods import make_config, method_names
from nodebits.models import build_model
from nodebits.runtime import convert
from packed_models import NODES, Case, make_case, threads, two_steps

NAMES = ("gcn", "gin", "gat", "sage")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("nodebits.graph.reorder._GROUP", 8)
    with threads(1):
        yield


def reordered(case: Case) -> ReorderedGraph:
    graph = case.packed.prepare_graph(case.edge_index, NODES, reorder=True)
    assert isinstance(graph, ReorderedGraph)
    assert not torch.equal(graph.order, torch.arange(NODES))
    return graph


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["uniform", "degree-quant", "sgquant"])
@pytest.mark.parametrize("features", [12, 300])
def test_the_same_bits(name: str, method: str, features: int) -> None:
    case = make_case(name, method, 4, features=features)
    graph = reordered(case)
    assert torch.equal(case.packed.predict(case.x, graph), case.simulated)
    ahead = case.packed.pack_input(case.x, edge_index=graph)
    assert torch.equal(case.packed.predict(ahead, graph), case.simulated)


def test_edge_weights_follow() -> None:
    case = make_case("gcn")
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(case.edge_index.size(1), generator=generator)
    model = build_model(case.spec)
    model = two_steps(model, make_config("uniform", 4), case.x, case.edge_index, weight)
    packed = convert(model)
    expected = packed.predict(case.x, case.edge_index, weight)
    graph = packed.prepare_graph(case.edge_index, NODES, reorder=True)
    assert torch.equal(packed.predict(case.x, graph, weight), expected)
    assert torch.equal(packed.predict(case.x, graph, edge_weight=weight), expected)


def test_what_cannot_follow_is_refused() -> None:
    case = make_case("gcn")
    graph = reordered(case)
    with pytest.raises(ConfigError, match="another order"):
        case.packed.predict(case.packed.pack_input(case.x), graph)
    ahead = case.packed.pack_input(case.x, edge_index=graph)
    with pytest.raises(ConfigError, match="reordered graph"):
        case.packed.predict(ahead, case.edge_index)
    with pytest.raises(ConfigError, match="another order"):
        case.packed.predict(ahead, reordered(case))
    with pytest.raises(ConfigError, match=r"argument 3 is a tensor \[40\]"):
        case.packed.predict(case.x, graph, torch.zeros(NODES))
    with pytest.raises(ShapeError, match="40 nodes"):
        case.packed.predict(case.x[1:], graph)
    pooled = make_case("gin", task="graph")
    graph = pooled.packed.prepare_graph(pooled.edge_index, NODES, reorder=True)
    with pytest.raises(ConfigError, match=r"batch is a tensor|row per node"):
        pooled.packed.predict(pooled.x, graph, **pooled.extra)


def test_a_bad_value_is_named_by_the_users_row() -> None:
    case = make_case("gcn")
    x = case.x.clone()
    x[31, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"31, 2"):
        case.packed.predict(x, reordered(case))


OPTIONS: list[dict[str, Any]] = [{}, {"input_bits": 4}, {"message_bits": 4}]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("options", [*OPTIONS, {"fallback": True}, {"message": "column"}], ids=str)
def test_the_right_answer_or_a_refusal(name: str, method: str, options: dict[str, Any]) -> None:
    if method != "a2q" and options.keys() & {"fallback", "message"}:
        pytest.skip("an option of A2Q's")
    case = make_case(name, method, 4, **options)
    bound = any(site.bound for site in case.packed.row_sites().values())
    order = torch.arange(NODES).flip(0)
    graph = ReorderedGraph(as_graph(case.edge_index, NODES, NODES), order)
    if not bound:
        assert torch.equal(case.packed.predict(case.x, graph), case.simulated)
        return
    case.packed.serve_other_graphs()
    for use in (
        lambda: case.packed.predict(case.x, graph),
        lambda: case.packed.pack_input(case.x, edge_index=graph),
        lambda: case.packed.prepare_graph(case.edge_index, NODES, reorder=True),
    ):
        with pytest.raises(ConfigError, match=r"site '.*every node"):
            use()


def test_a_prepared_model_takes_the_graph_itself() -> None:
    case = make_case("gcn")
    with pytest.raises(ConfigError, match="prepared model"):
        case.prepared(case.x, reordered(case))


def test_widths_per_node_stay_with_their_nodes() -> None:
    case = make_case("gcn")
    widths = torch.full((NODES,), 4)
    case.packed.module.site = PerNodeRows(widths, False, scale=torch.ones(NODES))
    with pytest.raises(ConfigError, match="every node"):
        case.packed.prepare_graph(case.edge_index, NODES, reorder=True)
