"""CGConv: maps of nodes and of edges, and two tables at every edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import CGConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, ShapeError
from nodebits.graph import Graph
from nodebits.methods import UniformConfig
from nodebits.nn import pairs
from nodebits.nn.propagate.layer import QuantMessagePassing

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
)

DIM = 3
LAYERS: dict[str, dict[str, Any]] = {
    "edges": {"dim": DIM},
    "nodes alone": {},
    "mean and norm": {"dim": DIM, "aggr": "mean", "batch_norm": True},
    "no bias": {"dim": DIM, "bias": False},
    "max": {"dim": DIM, "aggr": "max"},
}
each = pytest.mark.parametrize("name", LAYERS)


def made(name: str, width: Any = WIDTH) -> nn.Module:
    return CGConv(width, **LAYERS[name])


def inputs(name: str, x: Any, index: torch.Tensor) -> tuple[Any, ...]:
    return (x, index, features(index.size(1), DIM)) if "dim" in LAYERS[name] else (x, index)


@each
def test_float_sites(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "EDGE_BLOCK", 17)
    assert_equals_float(made(name), *inputs(name, features(), edges()))
    pair = features(), features(TARGETS, 5)
    assert_equals_float(made(name, (WIDTH, 5)), *inputs(name, pair, edges(NODES, TARGETS)))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs(name, features(), edges())
    for config in configs(bits, {"message*": 3}, {"message*": 32}, {"attention": 32}):
        assert_converts(made(name), config, *given)
    pair = inputs(name, (features(), features(TARGETS, 5)), edges(NODES, TARGETS))
    assert_converts(made(name, (WIDTH, 5)), UniformConfig(bits=bits), *pair)


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    layer, given = made(name).eval(), inputs(name, features(), edges())
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8, mode="ptq"), *given))
    expected, found = layer(*given), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    plan = packed.plan(*given)
    assert not isinstance(plan, str), plan
    steps = [step["op"] for step in plan.about["steps"]]
    assert "gated_product" in steps and not {"module", "torch"} & {*steps}


@each
def test_states_and_gradients(name: str) -> None:
    given = inputs(name, features(), edges())
    assert_state_survives(made(name), UniformConfig(bits=4), *given)
    layer = made(name)
    prepared = quantized(layer, UniformConfig(bits=8), *given)
    layer.eval()
    out = layer(*given)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    prepared(*given).backward(upstream)
    own = dict(prepared.named_parameters())
    both = [(own[n].grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*both, strict=True))
    # The largest of a target's edges may be another one in codes.
    least = 0.9 if layer.aggr == "max" else 0.97
    assert torch.cosine_similarity(mine, wanted, dim=0) > least


def test_rows_of_edges_follow_their_edges() -> None:
    x, index, attributes = inputs("edges", features(), edges())
    packed = nodebits.convert(quantized(made("edges"), UniformConfig(bits=4), x, index, attributes))
    order = torch.randperm(index.size(1))
    expected = packed.predict(x, index, attributes)
    assert torch.equal(packed.predict(x, index[:, order], attributes[order]), expected)
    graph = packed.prepare_graph(index, NODES)
    assert torch.equal(packed.predict(x, graph, attributes), expected)


def test_what_does_not_fit_is_refused() -> None:
    x, index, attributes = inputs("edges", features(), edges())
    prepared = quantized(made("edges"), UniformConfig(bits=8), x, index, attributes)
    for wrong in (None, attributes[:3], attributes[:, :2], attributes.to_sparse()):
        with pytest.raises(ShapeError, match="edge_attr"):
            prepared(x, index, wrong)
    with pytest.raises(ShapeError, match="no rows of targets"):
        prepared((x, None), index, attributes)
    hub = Graph(torch.tensor([0, 40_000]), torch.zeros(40_000, dtype=torch.int32), 1)
    alone = quantized(made("nodes alone"), UniformConfig(bits=8), x, index)
    with pytest.raises(AccumulatorOverflowError, match="in-degree 40000"):
        alone((x[:1], x[:1]), hub)
    # The largest of so many products is no larger than one of them.
    largest = quantized(CGConv(WIDTH, aggr="max"), UniformConfig(bits=8), x, index)
    assert largest((x[:1], x[:1]), hub).isfinite().all()


def test_the_smallest_runs_its_own_messages() -> None:
    layer = CGConv(WIDTH, aggr="min")
    assert isinstance(nodebits.prepare(layer, UniformConfig(bits=8)), QuantMessagePassing)
