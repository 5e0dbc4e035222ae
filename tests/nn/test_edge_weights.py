"""Edge weights: a scale per target, whatever their range, sign and number."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCN2Conv, GCNConv, GraphConv, TAGConv

import nodebits
from nodebits.core.errors import LostEdgeWeightsWarning
from nodebits.graph import as_graph
from nodebits.nn.quantizers import EdgeQuantizer, EdgeRows

from .cases import NODES, WIDTH, edges, features, quantized

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")


class TwoInputs(nn.Module):
    """GCN2Conv reads its input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCN2Conv(WIDTH, 0.1, 0.5, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        out: Tensor = self.conv(x, x, edge_index, edge_weight)
        return out


LAYERS = {
    "gcn": lambda: GCNConv(WIDTH, 5),
    "improved": lambda: GCNConv(WIDTH, 5, improved=True),
    "graph": lambda: GraphConv(WIDTH, 5),
    "mean": lambda: GraphConv(WIDTH, 5, aggr="mean"),
    "appnp": lambda: APPNP(3, 0.1),
    "gcn2": TwoInputs,
}


def weights_of(kind: str, count: int) -> Tensor:
    if kind == "heavy":
        return torch.exp(2 * torch.randn(count))
    weight = torch.rand(count) + 0.1
    weight[3] = 1000.0
    return weight


@pytest.mark.parametrize("kind", ["heavy", "one large"])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_any_range(name: str, kind: str) -> None:
    """As good as with weights in float, and the packed model is the simulation."""
    x, index, layer = features(), edges(), LAYERS[name]().eval()
    weight = weights_of(kind, index.size(1))
    expected = layer(x, index, weight).detach()

    def errors(config: Any) -> Tensor:
        prepared = quantized(layer, config, x, index, weight)
        found = nodebits.convert(prepared).predict(x, index, weight)
        assert torch.equal(found, prepared(x, index, weight).detach())
        return (found - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-3)

    unrounded = errors(nodebits.UniformConfig(bits=8, mode="ptq", attention_bits=32))
    assert bool((errors(PTQ) <= 1.5 * unrounded + 0.05).all())


@pytest.mark.parametrize("name", LAYERS)
def test_the_order_of_edges_does_not_matter(name: str) -> None:
    """Degrees are sums of weights as well, which floats would round in one order or another."""
    x, index, layer = features(), edges(), LAYERS[name]().eval()
    weight = torch.rand(index.size(1)) + 0.1
    weight[index[0] == index[1]] = 0.5  # of several loops of a node the last one counts
    packed = nodebits.convert(quantized(layer, PTQ, x, index, weight))
    expected = packed.predict(x, index, weight)
    for _ in range(20):
        order = torch.randperm(index.size(1))
        found = packed.predict(x, index[:, order], weight[order])
        assert torch.equal(found, expected)
    assert torch.equal(packed.module(x, index, weight), expected)


class TwoLayers(nn.Module):
    """What the sums leave is an input of the next layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConv(WIDTH, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, edge_index, edge_weight).relu())
        return out


@pytest.mark.parametrize("name", ["graph", "mean", "two", "tag"])
@pytest.mark.parametrize("kind", ["heavy", "one"])
def test_sums_of_raw_weights_reach_every_row(name: str, kind: str) -> None:
    """Sums of weights over orders of magnitude have no scale in common."""
    made = {
        **LAYERS,
        "two": TwoLayers,
        "tag": lambda: TAGConv(WIDTH, 5, K=2, normalize=False),
    }
    x, index, layer = features(), edges(), made[name]().eval()
    weight = torch.exp(3 * torch.randn(index.size(1))) if kind == "heavy" else None
    if weight is None:
        weight = torch.ones(index.size(1))
        weight[7] = 1000.0
    expected = layer(x, index, weight).detach()
    prepared = quantized(layer, PTQ, x, index, weight)
    found = nodebits.convert(prepared).predict(x, index, weight)
    assert torch.equal(found, prepared(x, index, weight).detach())
    error = (found - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-3)
    assert float(error.max() if name != "two" else error.median() / 2) < 0.1


@pytest.mark.parametrize("signed", [False, True])
def test_codes_of_every_target_reach_the_last(signed: bool) -> None:
    index = edges()
    weight = torch.exp(4 * torch.randn(index.size(1)))
    if signed:
        weight = weight * torch.randn(index.size(1)).sign()
    graph = as_graph(index, NODES, NODES, weight)
    assert graph.edge_weight is not None
    values = graph.edge_weight.view(-1, 1)
    codes, by_edge, zero_point, _ = EdgeQuantizer(8)(values, graph)
    largest = torch.zeros(NODES).scatter_reduce(0, graph.rows, values.abs().view(-1), "amax")
    assert bool(((codes - zero_point).abs() * by_edge - values.abs() <= by_edge).all())
    torch.testing.assert_close(by_edge.view(-1) * (127 if signed else 255), largest[graph.rows])
    frozen = EdgeRows(8).pack(values, graph=graph)
    assert torch.equal(frozen.codes().float(), codes)


def test_gradient_is_that_of_float_weights() -> None:
    x, index = features(), edges()
    layer = GraphConv(WIDTH, 5)
    grads = []
    for bits in (8, 32):
        config = nodebits.UniformConfig(bits=32, attention_bits=bits)
        weight = torch.rand(index.size(1), requires_grad=True)
        torch.manual_seed(1)
        with torch.no_grad():
            weight.copy_(torch.rand(index.size(1)))
        prepared = quantized(layer, config, x, index, weight)
        prepared(x, index, weight).sum().backward()
        assert weight.grad is not None
        grads.append(weight.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def test_weight_that_is_lost_is_told() -> None:
    """A node whose many small weights matter beside one that is large."""
    count = 2000
    index = torch.stack([torch.arange(count) % NODES, torch.zeros(count, dtype=torch.long)])
    weight = torch.ones(count)
    weight[0] = 1000.0
    prepared = nodebits.prepare(GraphConv(WIDTH, 5), PTQ)
    with pytest.warns(LostEdgeWeightsWarning, match=r"'attention'.*100.0%.*1 of 24 nodes"):
        nodebits.calibrate(prepared, features(), index, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LostEdgeWeightsWarning)
        nodebits.calibrate(prepared, features(), index, torch.rand(count))
