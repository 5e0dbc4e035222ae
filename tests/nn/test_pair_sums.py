"""GINEConv, ResGatedGraphConv and GENConv: sums over edges at which two rows meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GENConv, GINEConv, ResGatedGraphConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, ShapeError
from nodebits.graph import Graph
from nodebits.methods import SGQuantConfig, UniformConfig
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


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, 5))


def gine(**options: Any) -> nn.Module:
    return GINEConv(mlp(), **options)


def gated(**options: Any) -> nn.Module:
    return ResGatedGraphConv(WIDTH, 8, **options)


def gen(out: int = WIDTH, **options: Any) -> nn.Module:
    return GENConv(WIDTH, out, norm=None, **options)


LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GINE": (gine, {}),
    "GINE learned": (gine, {"train_eps": True, "eps": 0.3}),
    "GINE mapped": (gine, {"edge_dim": 3}),
    "GINE mean mapped": (gine, {"edge_dim": 3, "aggr": "mean"}),
    "GINE max": (gine, {"aggr": "max", "train_eps": True}),
    "ResGated": (gated, {}),
    "ResGated alone": (gated, {"root_weight": False, "bias": False}),
    "ResGated tanh": (gated, {"act": nn.Tanh()}),
    "ResGated SiLU mapped": (gated, {"act": nn.functional.silu, "edge_dim": 3}),
    "ResGated mapped": (gated, {"edge_dim": 3}),
    "ResGated mean": (gated, {"aggr": "mean"}),
    "GEN nodes": (gen, {"learn_t": True, "t": 0.7}),
    "GEN": (gen, {}),
    "GEN falling mapped": (gen, {"out": 8, "t": -1.5, "edge_dim": 3}),
    "GEN sum mapped": (
        gen,
        {"aggr": "add", "msg_norm": True, "learn_msg_scale": True, "edge_dim": 3},
    ),
    "GEN mean": (gen, {"aggr": "mean", "eps": 0.1}),
    "GEN max": (gen, {"aggr": "max", "bias": True}),
}
SOFTMAX = ("GEN", "GEN nodes", "GEN falling mapped")
each = pytest.mark.parametrize("name", LAYERS)


def inputs(name: str, index: torch.Tensor, x: Any) -> tuple[Any, ...]:
    if name == "GEN nodes" or (name.startswith("ResGated") and "mapped" not in name):
        return x, index
    return x, index, features(index.size(1), 3 if "mapped" in name else WIDTH)


def made(name: str) -> nn.Module:
    make, options = LAYERS[name]
    result: nn.Module = make(**options)
    return result


@each
def test_float_sites(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "EDGE_BLOCK", 17)
    assert_equals_float(made(name), *inputs(name, edges(), features()))
    pair = features(), features(TARGETS)
    assert_equals_float(made(name), *inputs(name, edges(NODES, TARGETS), pair))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs(name, edges(), features())
    tried = configs(bits, {"message*": 3}, {"message*": 32})
    if "mapped" not in name:  # a width by degree is for rows of nodes, and these are of edges
        tried.append(SGQuantConfig(bits=bits, degree_bits=(2, 4, 8, 8)))
    if bits == 4 and ("ResGated" in name or name == "GEN"):
        tried.append(UniformConfig(bits=bits, overrides={"attention": 32}))
    if bits == 4 and "ResGated" in name:
        tried.append(UniformConfig(bits=bits, overrides={"message_gate": 32}))
    for config in tried:
        assert_converts(made(name), config, *given)
    pair = inputs(name, edges(NODES, TARGETS), (features(), features(TARGETS)))
    assert_converts(made(name), UniformConfig(bits=bits), *pair)


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    layer, given = made(name).eval(), inputs(name, edges(), features())
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), *given)
    packed = nodebits.convert(prepared)
    kind = "max" if "max" in name else "softmax" if name in SOFTMAX else "sum"
    assert f"integer {kind}" in {s.runs for s in nodebits.sites(packed)}
    expected, found = layer(*given), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    plan = packed.plan(*given)
    assert not isinstance(plan, str), plan
    steps = [step["op"] for step in plan.about["steps"]]
    wanted = "gated_sum" if "ResGated" in name else "rectified_sum"
    if kind != "sum":
        wanted = "rectified_softmax"
    assert wanted in steps and "module" not in steps


@each
def test_states_and_gradients(name: str) -> None:
    given = inputs(name, edges(), features())
    assert_state_survives(made(name), UniformConfig(bits=4), *given)
    layer = made(name)
    prepared = quantized(layer, UniformConfig(bits=8), *given)
    out = layer(*given)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    prepared(*given).backward(upstream)
    mine_of = dict(prepared.named_parameters())
    both = [(mine_of[n].grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*both, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > 0.97


def test_rows_of_edges_follow_their_edges() -> None:
    x, index = features(), edges()
    given = inputs("GINE", index, x)
    packed = nodebits.convert(quantized(gine(), UniformConfig(bits=4), *given))
    order = torch.randperm(index.size(1))
    expected = packed.predict(*given)
    assert torch.equal(packed.predict(x, index[:, order], given[2][order]), expected)
    graph = packed.prepare_graph(index, NODES)
    assert torch.equal(packed.predict(x, graph, given[2]), expected)


def test_stacks_are_matrices_one_by_one() -> None:
    x, index = torch.randn(3, NODES, WIDTH), edges()
    attributes = features(index.size(1))
    packed = nodebits.convert(
        quantized(gine(), UniformConfig(bits=8), x.flatten(0, 1)[:NODES], index, attributes)
    )
    found = packed.predict(x, index, attributes)
    for one, part in zip(x, found, strict=True):
        assert torch.equal(packed.predict(one, index, attributes), part)


def test_what_every_edge_is_above_zero_by_is_kept() -> None:
    """A range far above zero: no sum of two codes is below it, and none is cut."""
    x, index = features().abs() + 50, edges()
    given = x, index, features(index.size(1)).abs() + 40
    layer = gine().eval()
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), *given)
    found, expected = nodebits.convert(prepared).predict(*given), layer(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_wrong_rows_of_edges_are_named() -> None:
    x, index = features(), edges()
    given = inputs("GINE", index, x)
    prepared = quantized(gine(), UniformConfig(bits=4), *given)
    for model in (prepared, nodebits.convert(prepared)):
        with pytest.raises(ShapeError, match=r"edge_attr \[91, 12\] for 92 edges"):
            model(x, index, given[2][1:])
        with pytest.raises(ShapeError, match="no edge_attr for 92 edges"):
            model(x, index)
        with pytest.raises(ShapeError, match=r"nodes of 12 columns.*edge_dim=5"):
            model(x, index, features(92, 5))


def test_what_is_no_table_runs_on_tiles() -> None:
    learned, jointly = nn.PReLU(), nn.Softmax(-1)
    others = [gated(act=learned), gated(act=jointly), gen(aggr="power"), gen(aggr=["add", "max"])]
    for layer in others:
        assert isinstance(nodebits.prepare(layer, UniformConfig(bits=8)), QuantMessagePassing)


def test_gates_follow_the_order_of_edges() -> None:
    x, index = features(), edges()
    given = inputs("ResGated mapped", index, x)
    packed = nodebits.convert(quantized(gated(edge_dim=3), UniformConfig(bits=4), *given))
    order = torch.randperm(index.size(1))
    expected = packed.predict(*given)
    assert torch.equal(packed.predict(x, index[:, order], given[2][order]), expected)


def test_sums_that_could_pass_int32_are_refused() -> None:
    degree = 5_000_000
    indptr = torch.tensor([0, degree])
    graph = Graph(indptr, torch.zeros(degree, dtype=torch.int32), 1)
    x = torch.randn(1, WIDTH)
    given = inputs("GINE", edges(), features())
    packed = nodebits.convert(quantized(gine(), UniformConfig(bits=8), *given))
    with pytest.raises(AccumulatorOverflowError, match="5000000"):
        packed.module(x, graph, torch.zeros(1, WIDTH).expand(degree, WIDTH))
