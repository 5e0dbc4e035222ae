"""SAGEConv and GraphConv."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GraphConv, SAGEConv

from nodebits.core.errors import NotCalibratedError, ShapeError
from nodebits.methods import DegreeQuantConfig, UniformConfig

from .cases import (
    BITS,
    FLOAT,
    NODES,
    TARGETS,
    WIDTH,
    adjacency_forms,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    edges,
    features,
    quantized,
    simple_edges,
)

SAGE: list[dict[str, Any]] = [
    {},
    {"aggr": "sum"},
    {"aggr": "add", "bias": False},
    {"project": True},
    {"normalize": True},
    {"root_weight": False},
    {"aggr": "sum", "project": True, "normalize": True, "root_weight": False},
]
CONFIGS = [
    lambda bits: UniformConfig(bits=bits),
    lambda bits: UniformConfig(bits=bits, attention_bits=bits),
    lambda bits: UniformConfig(bits=bits, mode="ptq", output_bits=6),
    lambda bits: UniformConfig(bits=bits, preset="published"),
    lambda bits: DegreeQuantConfig(bits=bits),
    lambda bits: DegreeQuantConfig(bits=bits, preset="published"),
    lambda bits: UniformConfig(bits=bits, overrides={"message": 3, "lin_*.weight": 5}),
    lambda bits: UniformConfig(bits=bits, overrides={"message": 32}),
    lambda bits: UniformConfig(bits=bits, attention_bits=32),
    lambda bits: UniformConfig(bits=bits, overrides={"lin_*.input": 32}),
]


@pytest.mark.parametrize("options", SAGE, ids=str)
def test_sage_float_sites(options: dict[str, Any]) -> None:
    assert_equals_float(SAGEConv(WIDTH, 5, **options), features(), edges())
    index = edges(NODES, TARGETS)
    width = WIDTH if options.get("root_weight", True) else 7
    pair = (features(), features(TARGETS, width))
    assert_equals_float(SAGEConv((WIDTH, width), 5, **options), pair, index)
    alone = (features(), None)
    assert_equals_float(SAGEConv(WIDTH, 5, **options), alone, index, size=(NODES, TARGETS))


@pytest.mark.parametrize("aggr", ["add", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_graph_conv_float_sites(aggr: str, weighted: bool) -> None:
    for index, x in (
        (edges(), features()),
        (edges(NODES, TARGETS), (features(), features(TARGETS))),
    ):
        weight = (torch.randn(index.size(1)),) if weighted else ()
        assert_equals_float(GraphConv(WIDTH, 5, aggr=aggr), x, index, *weight)
    pair = (features(), features(TARGETS, 7))
    assert_equals_float(GraphConv((WIDTH, 7), 5, aggr=aggr), pair, edges(NODES, TARGETS))


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
@pytest.mark.parametrize("layer", [SAGEConv, GraphConv])
def test_adjacency_forms(form: str, layer: type[nn.Module]) -> None:
    assert_equals_float(layer(WIDTH, 5), features(), adjacency_forms(simple_edges())[form])


@pytest.mark.parametrize("layer", [SAGEConv, GraphConv])
def test_no_edges(layer: type[nn.Module]) -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert_equals_float(layer(WIDTH, 5), features(), none)
    assert_converts(layer(WIDTH, 5), UniformConfig(bits=4), features(), none)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", SAGE, ids=str)
def test_sage_packed_is_the_simulation(bits: int, options: dict[str, Any]) -> None:
    index = edges(NODES, TARGETS)
    for config in CONFIGS if bits == 4 else CONFIGS[:5]:
        assert_converts(SAGEConv(WIDTH, 5, **options), config(bits), features(), edges())
    pair = (features(), features(TARGETS))
    assert_converts(SAGEConv(WIDTH, 5, **options), CONFIGS[0](bits), pair, index)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("aggr", ["add", "mean"])
@pytest.mark.parametrize("weights", ["none", "positive", "signed"])
def test_graph_conv_packed_is_the_simulation(bits: int, aggr: str, weights: str) -> None:
    index = edges()
    inputs: tuple[Any, ...] = (features(), index)
    if weights != "none":
        weight = torch.randn(index.size(1))
        inputs = (*inputs, weight.abs() if weights == "positive" else weight)
    for config in CONFIGS if bits == 4 else CONFIGS[:5]:
        assert_converts(GraphConv(WIDTH, 5, aggr=aggr), config(bits), *inputs)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("layer", [SAGEConv, GraphConv])
def test_states(bits: int, layer: type[nn.Module]) -> None:
    assert_state_survives(layer(WIDTH, 5), UniformConfig(bits=bits), features(), edges())


@pytest.mark.parametrize("layer", [SAGEConv, GraphConv])
def test_reset_forgets(layer: type[nn.Module]) -> None:
    x, index = features(), edges()
    prepared = quantized(layer(WIDTH, 5), UniformConfig(bits=4), x, index)
    before = {name: p.clone() for name, p in prepared.named_parameters() if "lin" in name}
    prepared.reset_parameters()  # type: ignore[operator]
    weights = [n for n in before if n.endswith(("lin_l.weight", "lin_rel.weight"))]
    assert weights
    assert not any(torch.equal(prepared.get_parameter(n), before[n]) for n in weights)
    with pytest.raises(NotCalibratedError):
        prepared(x, index)


def test_wrong_number_of_weights() -> None:
    prepared = quantized(GraphConv(WIDTH, 5), FLOAT, features(), edges())
    with pytest.raises(ShapeError, match=r"edge_weight has shape \[3\]"):
        prepared(features(), edges(), torch.ones(3))
