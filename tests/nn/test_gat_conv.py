"""GATConv: integer scores, integer-normalised attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import GATConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, NotCalibratedError
from nodebits.graph import Graph
from nodebits.methods import UniformConfig

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
    simple_edges,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"heads": 3},
    {"heads": 3, "concat": False},
    {"heads": 2, "residual": True},
    {"heads": 2, "concat": False, "residual": True, "bias": False},
    {"heads": 2, "negative_slope": 0.01},
    {"heads": 2, "add_self_loops": False},
    {"heads": 2, "dropout": 0.6},  # not active in evaluation
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float_sites(options: dict[str, Any]) -> None:
    assert_equals_float(GATConv(WIDTH, 4, **options), features(), edges())
    assert_equals_float(GATConv((WIDTH, WIDTH), 4, **options), features(), edges())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bipartite(options: dict[str, Any]) -> None:
    index = edges(NODES, TARGETS)
    pair = (features(), features(TARGETS, 7))
    assert_equals_float(GATConv((WIDTH, 7), 4, **options), pair, index)
    shared = (features(), features(TARGETS))
    assert_equals_float(GATConv(WIDTH, 4, **options), shared, index)
    assert_equals_float(GATConv(WIDTH, 4, **options), (features(), None), index, size=(24, 10))
    for bits in (8, 2):
        config = UniformConfig(bits=bits)
        assert_converts(GATConv((WIDTH, 7), 4, **options), config, pair, index)


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
def test_adjacency_forms(form: str) -> None:
    # PyG's own GATConv adds no loops to torch.sparse matrices of some layouts.
    layer = GATConv(WIDTH, 4, heads=2, add_self_loops=False)
    assert_equals_float(layer, features(), adjacency_forms(simple_edges())[form])


def test_no_edges() -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    for loops in (True, False):
        layer = GATConv(WIDTH, 4, heads=2, add_self_loops=loops)
        assert_equals_float(layer, features(), none)
        assert_converts(layer, UniformConfig(bits=4), features(), none)
        prepared = quantized(layer, UniformConfig(bits=4), features(), edges()).train()
        prepared(features(), none).sum().backward()
        prepared(features(0), none).sum().backward()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
def test_packed_is_the_simulation(bits: int, options: dict[str, Any]) -> None:
    layer = GATConv(WIDTH, 4, **options)
    own = {"message": 3, "lin.*": 5, "att_weight": 6}
    floats = [{name: 32} for name in ("attention", "att_weight", "message")]
    for config in configs(bits, own, *floats):
        assert_converts(layer, config, features(), edges())


@pytest.mark.parametrize("bits", BITS)
def test_states(bits: int) -> None:
    for layer in (GATConv(WIDTH, 4, heads=2), GATConv((WIDTH, WIDTH), 4, residual=True)):
        assert_state_survives(layer, UniformConfig(bits=bits), features(), edges())


def test_attention_vectors_are_dropped() -> None:
    packed = assert_converts(GATConv(WIDTH, 4, heads=2), UniformConfig(bits=4), features(), edges())
    state = packed.state_dict()
    assert state["module.att_weight.packed"].dtype == torch.uint8
    assert not {"module.att_src", "module.att_dst"} & state.keys()


def test_reset_forgets() -> None:
    x, index = features(), edges()
    prepared = quantized(GATConv(WIDTH, 4), UniformConfig(bits=4), x, index)
    before = prepared.att_src.clone()  # type: ignore[union-attr, operator]
    prepared.reset_parameters()  # type: ignore[operator]
    assert not torch.equal(prepared.att_src, before)  # type: ignore[arg-type]
    with pytest.raises(NotCalibratedError):
        prepared(x, index)


@pytest.mark.parametrize(
    ("config", "least"),
    [
        (UniformConfig(bits=32, attention_bits=8, overrides={"att_weight": 32}), 0.9999),
        (UniformConfig(bits=8), 0.97),
    ],
)
def test_gradients_follow_float(config: UniformConfig, least: float) -> None:
    x, index = features(), edges()
    layer = GATConv(WIDTH, 4, heads=2)
    prepared = quantized(layer, config, x, index)
    upstream = torch.randn(NODES, 8)
    for model in (layer, prepared):
        model(x, index).backward(upstream)
    pairs = [(prepared.get_parameter(n).grad, p.grad) for n, p in layer.named_parameters()]
    mine, wanted = (torch.cat([g.flatten() for g in side]) for side in zip(*pairs, strict=True))
    assert torch.cosine_similarity(mine, wanted, dim=0) > least


def test_dropout_acts_in_training_only() -> None:
    x, index = features(), edges()
    prepared = quantized(GATConv(WIDTH, 4, dropout=0.5), UniformConfig(bits=8), x, index)
    assert torch.equal(prepared(x, index), prepared(x, index))
    prepared.train()
    assert not torch.equal(prepared(x, index), prepared(x, index))


def test_hub_does_not_underflow() -> None:
    """A softmax rounded to 8 bits would be zero for a node of 5,000 equal neighbours."""
    count = 5000
    x = torch.ones(count, WIDTH) + 0.01 * torch.rand(count, WIDTH)
    star = torch.stack([torch.arange(1, count), torch.zeros(count - 1, dtype=torch.int64)])
    layer = GATConv(WIDTH, 4)
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8), x, star))
    torch.testing.assert_close(packed.module(x, star)[0], layer(x, star)[0], atol=0.05, rtol=0.05)


def test_accumulator_is_checked() -> None:
    x = features()
    packed = nodebits.convert(
        quantized(GATConv(WIDTH, 4, add_self_loops=False), UniformConfig(bits=8), x, edges())
    )
    bound = (2**31 - 1) // (255 * 255)
    index = torch.zeros(2, bound + 1, dtype=torch.int64)
    graph = packed.prepare_graph(index, NODES)
    assert isinstance(graph, Graph)
    with pytest.raises(AccumulatorOverflowError, match=f"node 0 has in-degree {bound + 1}"):
        packed.predict(x, graph)
