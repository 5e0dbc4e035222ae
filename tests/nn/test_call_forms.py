"""What PyG's layers take, ours take: stacks of matrices, attention weights, other float types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import APPNP, GATConv, GCNConv, GINConv, GraphConv, SAGEConv

import nodebits
from nodebits.core.errors import ConfigError, ShapeError, UnsupportedLayerWarning

from .cases import NODES, WIDTH, adjacency_forms, edges, features, quantized, simple_edges

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
STACKING = {
    "gcn": lambda: GCNConv(WIDTH, 5),
    "sage": lambda: SAGEConv(WIDTH, 5),
    "graph": lambda: GraphConv(WIDTH, 5),
    "gin": lambda: GINConv(nn.Linear(WIDTH, 5)),
    "appnp": lambda: APPNP(2, 0.1),
}


@pytest.mark.parametrize("name", STACKING)
def test_a_stack_is_its_matrices_one_by_one(name: str) -> None:
    layer, index, x = STACKING[name]().eval(), edges(), torch.randn(2, 3, NODES, WIDTH)
    expected = layer(x, index).detach()
    prepared = quantized(layer, PTQ, x, index)
    packed = nodebits.convert(prepared)
    found = packed.predict(x, index)
    assert torch.equal(prepared(x, index).detach(), found)
    assert float((found - expected).norm() / expected.norm()) < 0.05
    assert torch.equal(found[1, 2], packed.predict(x[1, 2], index))


@pytest.mark.parametrize("name", [*STACKING, "gat"])
def test_wrong_features_are_named(name: str) -> None:
    layer = GATConv(WIDTH, 5) if name == "gat" else STACKING[name]()
    prepared = nodebits.prepare(layer, PTQ)
    nodebits.calibrate(prepared, features(), edges())
    wrong: list[Any] = [features()[0], [features()] * 3, features().long(), "x"]
    if name != "appnp":
        wrong.append(features(cols=WIDTH + 1))
    for model in (prepared.eval(), nodebits.convert(prepared).module):
        for x in wrong:
            with pytest.raises(ShapeError, match=r"layer '.*expected"):
                model(x, edges())


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
def test_attention_weights_as_the_float_layer_returns_them(form: str) -> None:
    x, adjacency = features(), adjacency_forms(simple_edges())[form]
    layer = GATConv(WIDTH, 4, heads=2).eval()
    _, (expected_edges, expected) = layer(x, adjacency, return_attention_weights=True)
    prepared = quantized(layer, PTQ, x, adjacency)
    for model in (prepared, nodebits.convert(prepared).predict):
        out, (found_edges, alpha) = model(x, adjacency, return_attention_weights=True)
        assert torch.equal(out, model(x, adjacency))
        assert found_edges.layout == expected_edges.layout
        torch.testing.assert_close(alpha, expected, rtol=0, atol=0.03)
        if form == "edge_index":
            assert torch.equal(found_edges, expected_edges)


@pytest.mark.parametrize("name", STACKING)
def test_autocast_changes_no_bit(name: str) -> None:
    x, index = features(), edges()
    prepared = quantized(STACKING[name](), PTQ, x, index)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        within = prepared(x, index)
    assert torch.equal(within, prepared(x, index).detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    x, index, layer = features(), edges(), GCNConv(WIDTH, 5)
    with pytest.warns(UnsupportedLayerWarning, match="cast to float32"):
        nodebits.prepare(GCNConv(WIDTH, 5).to(dtype), PTQ)
    prepared = quantized(layer, PTQ, x, index)
    packed = nodebits.convert(prepared)
    expected = packed.predict(x, index)
    assert torch.equal(packed.to(dtype).predict(x, index), expected)
    with pytest.raises(ConfigError, match="float32"):
        prepared.to(dtype)
