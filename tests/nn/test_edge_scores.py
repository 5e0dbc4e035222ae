"""Edge features inside scores, and scores that are products of both ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    CGConv,
    GATConv,
    GATv2Conv,
    ResGatedGraphConv,
    SuperGATConv,
    TransformerConv,
)

import nodebits
from nodebits.core.errors import GraphError, ShapeError
from nodebits.methods import UniformConfig
from nodebits.nn import pairs
from nodebits.nn.forms import cosine
from nodebits.nn.propagate.layer import QuantMessagePassing

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    adjacency_forms,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
)

LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GAT": (GATConv, {"heads": 2, "edge_dim": 3}),
    "GAT alone": (GATConv, {"heads": 2, "edge_dim": 3, "add_self_loops": False, "concat": False}),
    "GAT filled": (GATConv, {"edge_dim": 3, "fill_value": 0.5, "residual": True}),
    "GATv2": (GATv2Conv, {"heads": 2, "edge_dim": 3}),
    "GATv2 added": (GATv2Conv, {"edge_dim": 3, "fill_value": "add", "share_weights": True}),
    "GATv2 filled": (GATv2Conv, {"heads": 3, "edge_dim": 3, "fill_value": 0.5, "residual": True}),
    "GATv2 alone": (GATv2Conv, {"heads": 2, "edge_dim": 3, "add_self_loops": False}),
    "Transformer": (TransformerConv, {"heads": 2, "edge_dim": 3}),
    "Transformer beta": (TransformerConv, {"edge_dim": 3, "beta": True, "concat": False}),
    "SuperGAT": (SuperGATConv, {"heads": 2}),
    "SuperGAT mean": (SuperGATConv, {"heads": 3, "concat": False, "add_self_loops": False}),
    "SuperGAT SD": (SuperGATConv, {"heads": 2, "attention_type": "SD", "bias": False}),
}
each = pytest.mark.parametrize("name", LAYERS)
with_edges = pytest.mark.parametrize("name", [n for n in LAYERS if "Super" not in n])


def made(name: str) -> nn.Module:
    kind, options = LAYERS[name]
    layer: nn.Module = kind(WIDTH, 4, **options)
    return layer


def inputs(name: str, index: torch.Tensor) -> tuple[Any, ...]:
    x = features()
    return (x, index) if "Super" in name else (x, index, features(index.size(1), 3))


@each
def test_float_sites(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "EDGE_BLOCK", 17)
    monkeypatch.setattr(cosine, "EDGE_BLOCK", 17)
    assert_equals_float(made(name), *inputs(name, edges()))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs(name, edges())
    for config in configs(bits, {"message*": 3, "att*": 6}, {"att*": 32}, {"message*": 32}):
        assert_converts(made(name), config, *given)


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    kind, options = LAYERS[name]
    layer, given = kind(WIDTH, 16, **options).eval(), inputs(name, edges())
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8, mode="ptq"), *given))
    expected, found = layer(*given), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.03
    plan = packed.plan(*given)
    assert not isinstance(plan, str), plan
    steps = [step["op"] for step in plan.about["steps"]]
    wanted = "pair_scores" if "Super" in name else "attention_codes"
    wanted = "edge_softmax" if name.startswith("GAT ") or name == "GAT" else wanted
    assert wanted in steps and "module" not in steps
    # Maps write codes, those of edges too where two sites read them; beta reads their sums.
    assert "quantize_pack" not in steps or "beta" in name
    assert torch.equal(packed.module(*given), found)


@each
def test_states_and_gradients(name: str) -> None:
    given = inputs(name, edges())
    assert_state_survives(made(name), UniformConfig(bits=4), *given)
    layer = made(name)
    prepared = quantized(layer, UniformConfig(bits=8), *given)
    upstream = torch.randn_like(layer.eval()(*given))
    for model in (layer, prepared):
        model(*given).backward(upstream)
    both = [(prepared.get_parameter(n).grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*both, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > 0.97


@with_edges
def test_rows_of_edges_follow_their_edges(name: str) -> None:
    x, index, attributes = inputs(name, edges())
    packed = nodebits.convert(quantized(made(name), UniformConfig(bits=4), x, index, attributes))
    order = torch.randperm(index.size(1))
    expected = packed.predict(x, index, attributes)
    found = packed.predict(x, index[:, order], attributes[order])
    assert float((found - expected).abs().max()) < 1e-6  # a loop's mean has another order
    if LAYERS[name][0] is TransformerConv:
        assert torch.equal(found, expected)


@with_edges
def test_pairs_are_packed(name: str) -> None:
    kind, options = LAYERS[name]
    layer = kind(
        (WIDTH, 7), 4, **{**options, "share_weights": False} if "GATv2" in name else options
    )
    if options.get("residual") or (options.get("add_self_loops", True) and "GAT" in name):
        return  # PyG gives loops to as many nodes as the smaller side has
    index = edges(NODES, TARGETS)
    pair = (features(), features(TARGETS, 7)), index, features(index.size(1), 3)
    assert_equals_float(layer, *pair)
    assert_converts(layer, UniformConfig(bits=4), *pair)


def test_what_is_missing_or_unknown_is_named() -> None:
    x, index, attributes = inputs("GATv2", edges())
    prepared = quantized(made("GATv2"), UniformConfig(bits=4), x, index, attributes)
    with pytest.raises(ShapeError, match=r"edge_attr \[91, 3\] for 92 edges"):
        prepared(x, index, attributes[1:])
    matrix = adjacency_forms(index)["csr"]
    with pytest.raises(GraphError, match="gives loops to edges with features"):
        prepared(x, matrix, features(matrix.values().numel(), 3))
    of_edges = quantized(made("Transformer"), UniformConfig(bits=4), x, index, attributes)
    with pytest.raises(ShapeError, match="no edge_attr for 92 edges"):
        of_edges(x, index)
    for fill in ("max", torch.ones(3)):
        layer = GATv2Conv(WIDTH, 4, edge_dim=3, fill_value=fill)
        assert isinstance(nodebits.prepare(layer, UniformConfig(bits=8)), QuantMessagePassing)


def test_a_loop_that_is_there_makes_room_for_the_new_one() -> None:
    index = torch.tensor([[0, 1, 1, 2, 2], [1, 1, 0, 2, 1]])
    layer = GATv2Conv(WIDTH, 4, edge_dim=3).eval()
    given = features(4), index, features(5, 3)
    assert_equals_float(layer, *given)
    assert_converts(layer, UniformConfig(bits=8), *given)


@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_the_loss_of_attention_trains(kind: str) -> None:
    x, index = features(), edges()
    layer = SuperGATConv(WIDTH, 4, heads=2, attention_type=kind)
    prepared: Any = nodebits.prepare(layer, UniformConfig(bits=8)).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        torch.manual_seed(0)
        prepared(x, index)
        loss = prepared.get_attention_loss()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()


@pytest.mark.parametrize(
    "layer",
    (GATConv(8, 8, edge_dim=3), CGConv(8, 3), ResGatedGraphConv(8, 8, edge_dim=3)),
    ids=lambda layer: type(layer).__name__,
)
def test_what_are_no_features_of_these_edges_is_refused(layer: nn.Module) -> None:
    x, edges, features = torch.randn(30, 8), torch.randint(0, 30, (2, 90)), torch.randn(90, 3)
    prepared = nodebits.prepare(layer, UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, edges, features)
    wide, stacked = torch.randn(90, 5), torch.randn(90, 3, 2)
    for wrong in ([1.0], "no", torch.tensor(1.0), features.numpy(), features[:50], wide, stacked):
        for module in (prepared, nodebits.convert(prepared).module):
            with pytest.raises(ShapeError, match="edge_attr"):
                module(x, edges, wrong)
