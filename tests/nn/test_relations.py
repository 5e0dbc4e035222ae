"""RGCNConv and FiLMConv: sums per relation over the same packed rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import FastRGCNConv, FiLMConv, RGCNConv

import nodebits
from nodebits.core.errors import GraphError, NodeIndexError, ShapeError
from nodebits.graph.adjacency import as_graph
from nodebits.methods import UniformConfig
from nodebits.nn.propagate.layer import QuantMessagePassing
from nodebits.nn.rgcn_conv import QuantRGCNConv
from nodebits.plan.plan import Plan

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

KINDS = 3
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "RGCN": (RGCNConv, {}),
    "RGCN basis": (RGCNConv, {"num_bases": 2}),
    "RGCN blocks": (RGCNConv, {"num_blocks": 4}),
    "RGCN sum": (RGCNConv, {"aggr": "add"}),
    "RGCN max": (RGCNConv, {"aggr": "max"}),
    "RGCN alone": (RGCNConv, {"root_weight": False, "bias": False}),
    "FastRGCN": (FastRGCNConv, {}),
    "FastRGCN blocks": (FastRGCNConv, {"num_blocks": 2}),
    "FiLM": (FiLMConv, {}),
    "FiLM linear": (FiLMConv, {"act": None}),
    "FiLM sum": (FiLMConv, {"aggr": "add"}),
}
each = pytest.mark.parametrize("name", LAYERS)
BY_NUMBER = {"plain": {}, "basis": {"num_bases": 2}, "max": {"aggr": "max"}}
by_number = pytest.mark.parametrize("options", BY_NUMBER.values(), ids=BY_NUMBER)


def made(name: str, width: Any = WIDTH) -> nn.Module:
    make, options = LAYERS[name]
    result: nn.Module = make(width, 8, KINDS, **options)
    return result


def inputs(x: Any, index: torch.Tensor) -> tuple[Any, ...]:
    return x, index, torch.arange(index.size(1)) % KINDS


@each
def test_float_sites(name: str) -> None:
    assert_equals_float(made(name), *inputs(features(), edges()))
    pair = features(), features(TARGETS, 5)
    assert_equals_float(made(name, (WIDTH, 5)), *inputs(pair, edges(NODES, TARGETS)))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs(features(), edges())
    for config in configs(bits, {"message": 3}, {"message": 32}):
        assert_converts(made(name), config, *given)
    pair = inputs((features(), features(TARGETS, 5)), edges(NODES, TARGETS))
    assert_converts(made(name, (WIDTH, 5)), UniformConfig(bits=bits), *pair)


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    layer, given = made(name).eval(), inputs(features(), edges())
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8, mode="ptq"), *given))
    assert {s.runs for s in nodebits.sites(packed)} >= {
        "integer max" if "max" in name else "integer sum"
    }
    expected, found = layer(*given), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    plan = packed.plan(*given)
    assert not isinstance(plan, str), plan
    steps = [step["op"] for step in plan.about["steps"]]
    assert "by_relation" in steps and not {"module", "torch"} & {*steps}
    rectified = name in ("FiLM", "FiLM sum")
    assert steps.count("modulated_sum") == (KINDS if rectified else 0)


@each
def test_states_and_gradients(name: str) -> None:
    given = inputs(features(), edges())
    assert_state_survives(made(name), UniformConfig(bits=4), *given)
    layer = made(name)
    prepared = quantized(layer, UniformConfig(bits=8), *given)
    out = layer(*given)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    prepared(*given).backward(upstream)
    both = [(prepared.get_parameter(n).grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*both, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > 0.97


@each
def test_relations_follow_their_edges(name: str) -> None:
    x, index, kinds = inputs(features(), edges())
    packed = nodebits.convert(quantized(made(name), UniformConfig(bits=4), x, index, kinds))
    expected = packed.predict(x, index, kinds)
    order = torch.randperm(index.size(1))
    assert torch.equal(packed.predict(x, index[:, order], kinds[order]), expected)
    assert torch.equal(packed.predict(x, packed.prepare_graph(index, NODES), kinds), expected)


def test_forms_of_one_mathematics_give_one_result() -> None:
    layer = RGCNConv(WIDTH, 8, KINDS)
    fast = FastRGCNConv(WIDTH, 8, KINDS)
    fast.load_state_dict(layer.state_dict())
    given, config = inputs(features(), edges()), UniformConfig(bits=4, mode="ptq")
    found = [nodebits.convert(quantized(one, config, *given)) for one in (layer, fast)]
    assert torch.equal(found[0].predict(*given), found[1].predict(*given))


@pytest.mark.parametrize("bits", BITS)
@by_number
def test_nodes_by_number(options: dict[str, Any], bits: int) -> None:
    layer = RGCNConv(NODES, 8, KINDS, **options).eval()
    index = edges()
    for x in (None, torch.randperm(NODES)):
        given = inputs(x, index)
        packed = assert_converts(layer, UniformConfig(bits=bits, mode="ptq"), *given)
        expected, found = layer(*given), packed.predict(*given)
        assert bits < 8 or float((found - expected).norm() / expected.norm()) < 0.02
        prepared = nodebits.prepare(layer, UniformConfig(bits=32))
        torch.testing.assert_close(prepared.eval()(*given), expected, atol=1e-5, rtol=1e-5)


@by_number
def test_nodes_by_number_have_a_plan(options: dict[str, Any]) -> None:
    layer, index = RGCNConv(NODES, 8, KINDS, **options).eval(), edges()
    given = inputs(torch.randint(0, NODES, (NODES,)), index)
    packed = assert_converts(layer, UniformConfig(bits=8, mode="ptq"), *given)
    plan = packed.plan(*given)
    assert isinstance(plan, Plan) and plan.leaves == []
    others = inputs(torch.randint(0, NODES, (2 * NODES,)), index)
    for one in (given, others, inputs(given[0][:0], index[:, :0])):
        assert torch.equal(packed.predict(*one), packed.module(*one))
    with pytest.raises(NodeIndexError, match=f"numbers of nodes from 1 to {NODES}"):
        packed.predict(torch.arange(NODES) + 1, *others[1:])


def test_embeddings_are_trained() -> None:
    prepared = nodebits.prepare(RGCNConv(NODES, 8, KINDS, num_bases=2), UniformConfig(bits=4))
    prepared(*inputs(None, edges())).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in prepared.named_parameters()
        if n in ("weight", "comp", "root", "bias")
    )


def test_what_does_not_fit_is_refused() -> None:
    given = inputs(features(), edges())
    packed = nodebits.convert(quantized(made("RGCN"), UniformConfig(bits=8), *given))
    x, index, kinds = given
    with pytest.raises(GraphError, match="no edge_type"):
        packed.predict(x, index)
    with pytest.raises(GraphError, match=r"edge_type is torch.int64 \[3\]"):
        packed.predict(x, index, kinds[:3])
    with pytest.raises(NodeIndexError, match=r"edge_type\[1\] is 3"):
        packed.predict(x, index, kinds.where(kinds != 1, KINDS))
    with pytest.raises(ShapeError, match="got numbers of nodes, expected features"):
        packed.predict(None, index, kinds)
    with pytest.raises(ShapeError, match="expected rows of 12"):
        packed.predict(features(NODES, 5), index, kinds)
    blocks = nodebits.prepare(made("RGCN blocks"), UniformConfig(bits=8))
    with pytest.raises(ShapeError, match="blocks"):
        blocks(torch.arange(NODES), index, kinds)
    numbers = nodebits.prepare(RGCNConv(NODES, 8, KINDS), UniformConfig(bits=8))
    with pytest.raises(NodeIndexError, match="rows 0 to 23"):
        numbers(torch.arange(NODES) + 1, index, kinds)


def test_other_activations_run_their_own_messages() -> None:
    layer = FiLMConv(WIDTH, 8, act=nn.Tanh())
    assert isinstance(nodebits.prepare(layer, UniformConfig(bits=8)), QuantMessagePassing)
    assert isinstance(nodebits.prepare(made("RGCN"), UniformConfig(bits=8)), QuantRGCNConv)


def test_relations_are_parts_of_two_arrays() -> None:
    index = edges()
    kinds = torch.randint(KINDS, (index.size(1),))
    graph = as_graph(index, NODES)
    parts = graph.by_relation(kinds, KINDS)
    for kind, part in enumerate(parts):
        own = as_graph(index[:, kinds == kind], NODES)
        assert torch.equal(part.indptr, own.indptr) and torch.equal(part.indices, own.indices)
    assert len({part.indices.untyped_storage().data_ptr() for part in parts}) == 1
    assert graph.by_relation(kinds, KINDS) is parts
    empty = as_graph(torch.zeros(2, 0, dtype=torch.int64), 0).by_relation(kinds[:0], KINDS)
    assert [part.num_edges for part in empty] == [0] * KINDS
