"""Layers stand in for the type that they replace: isinstance, copies, what stays readable."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    AGNNConv,
    GATConv,
    GCN2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    Linear,
    MessagePassing,
    SAGEConv,
)

import nodebits
from nodebits.core.errors import UnsupportedLayerError
from nodebits.nn import layer as layers
from nodebits.nn.dagnn import DAGNNConv
from nodebits.nn.elastic_conv import ElasticConv
from nodebits.nn.layer import QuantLayer, layer_for
from nodebits.nn.smp_conv import SMPConv
from nodebits.runtime import PackedModel

WIDTH = 8
FLOAT: dict[type[nn.Module], Callable[[], nn.Module]] = {
    nn.Linear: lambda: nn.Linear(WIDTH, WIDTH),
    Linear: lambda: Linear(WIDTH, WIDTH, weight_initializer="glorot"),
    GCNConv: lambda: GCNConv(WIDTH, WIDTH),
    GINConv: lambda: GINConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())),
    GATConv: lambda: GATConv(WIDTH, 4, heads=2),
    SAGEConv: lambda: SAGEConv(WIDTH, WIDTH),
    GraphConv: lambda: GraphConv(WIDTH, WIDTH),
    GCN2Conv: lambda: GCN2Conv(WIDTH, 0.1, 0.5, 1),
    AGNNConv: AGNNConv,
    APPNP: lambda: APPNP(2, 0.1),
    SMPConv: lambda: SMPConv(2, 0.1),
    DAGNNConv: lambda: DAGNNConv(WIDTH, 2),
    ElasticConv: lambda: ElasticConv(2),
    nn.Embedding: lambda: nn.Embedding(6, WIDTH),
}
# Of these only what they took over is asked; the names are those that the float types document.
READABLE = (
    "num_embeddings",
    "embedding_dim",
    "in_channels",
    "out_channels",
    "in_features",
    "out_features",
    "heads",
    "aggr",
    "K",
    "alpha",
    "cached",
    "node_dim",
    "flow",
)


def inputs(float_type: type[nn.Module]) -> tuple[Any, ...]:
    torch.manual_seed(0)
    x = torch.randn(6, WIDTH)
    edge_index = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    if float_type is nn.Embedding:
        return (torch.arange(6),)
    if not issubclass(float_type, MessagePassing | ElasticConv):
        return (x,)
    return (x, x, edge_index) if float_type is GCN2Conv else (x, edge_index)


def prepared_and_packed(float_type: type[nn.Module]) -> tuple[nn.Module, PackedModel]:
    torch.manual_seed(1)
    prepared = nodebits.prepare(FLOAT[float_type]().eval(), nodebits.UniformConfig(mode="ptq"))
    nodebits.calibrate(prepared, *inputs(float_type))
    return prepared, nodebits.convert(prepared)


def test_every_registered_type_is_tried() -> None:
    assert set(FLOAT) == set(layers._by_float_type)


@pytest.mark.parametrize("float_type", FLOAT)
def test_a_layer_is_still_of_its_type(float_type: type[nn.Module], tmp_path: Any) -> None:
    module = FLOAT[float_type]()
    prepared, packed = prepared_and_packed(float_type)
    path = tmp_path / "layer.safetensors"
    packed.save(path)
    loaded = nodebits.load(path, model=module)
    for layer in (prepared, packed.module, loaded.module):
        assert isinstance(layer, float_type) and isinstance(layer, QuantLayer)
        assert layer_for(layer) is None, "a prepared layer is not prepared again"
        assert type(layer).__name__ in repr(layer)
        for name in READABLE:
            if hasattr(module, name):
                assert getattr(layer, name) == getattr(module, name), name
    assert isinstance(prepared, nn.Linear) == (float_type is nn.Linear)


@pytest.mark.parametrize("copied", (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))))
@pytest.mark.parametrize("float_type", FLOAT)
def test_copies_compute_the_same(
    float_type: type[nn.Module], copied: Callable[[nn.Module], nn.Module]
) -> None:
    args = inputs(float_type)
    for layer in prepared_and_packed(float_type):
        again = copied(layer)
        inner = again.module if isinstance(again, PackedModel) else again
        assert isinstance(inner, float_type)
        stored = {t.data_ptr() for t in layer.state_dict().values() if t.numel()}
        assert stored.isdisjoint(t.data_ptr() for t in again.state_dict().values())
        with torch.no_grad():
            module = layer.module if isinstance(layer, PackedModel) else layer
            assert torch.equal(inner(*args), module(*args))


class ByType(nn.Module):
    """Dispatches on the type of its layers, and reads what they document."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([GCNConv(WIDTH, WIDTH, bias=False), nn.ReLU(), GATConv(8, 8)])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        device = next(self.parameters()).device
        for layer in self.layers:
            is_conv = isinstance(layer, MessagePassing)
            x = layer(x.to(device), edge_index) if is_conv else layer(x)
        return x


def test_a_forward_may_ask_for_types() -> None:
    x, edge_index = inputs(GCNConv)
    prepared = nodebits.prepare(ByType().eval(), nodebits.UniformConfig(mode="ptq"))
    nodebits.calibrate(prepared, x, edge_index)
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edge_index), prepared(x, edge_index))


@pytest.mark.parametrize("float_type", (nn.Linear, Linear))
@pytest.mark.parametrize("bits", (8, 2, 32))
def test_a_packed_weight_stays_readable(float_type: type[nn.Module], bits: int) -> None:
    config = nodebits.UniformConfig(bits=4, weight_bits=bits)
    prepared = nodebits.prepare(float_type(WIDTH, 5, bias=False), config)
    weight = prepared.weight
    assert isinstance(weight, nn.Parameter)
    nodebits.calibrate(prepared, inputs(nn.Linear)[0])
    packed = nodebits.convert(prepared).module
    assert packed.weight.dtype == weight.dtype and packed.weight.device == weight.device
    codes, scale = prepared.quantized_weight(weight)
    assert torch.equal(packed.weight, codes * scale.view(-1, 1) if bits != 32 else weight)
    assert not [p for p in packed.parameters() if p.requires_grad] and list(packed.parameters())


def test_messages_of_single_edges_are_refused() -> None:
    prepared, packed = prepared_and_packed(GCNConv)
    for layer in (prepared, packed.module):
        with pytest.raises(UnsupportedLayerError, match="GCNConv has none"):
            layer.explain = True
        layer.explain = None  # what explainers do when they are through
        with pytest.raises(UnsupportedLayerError, match=r"propagate\(\)"):
            layer.propagate(inputs(GCNConv)[1], x=inputs(GCNConv)[0])
        with pytest.raises(UnsupportedLayerError, match=r"message\(\)"):
            layer.register_message_forward_hook(print)
