"""Layers stand in for the type that they replace: dispatch on types, weights, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, Linear, MessagePassing

import nodebits
from nodebits.core.errors import UnsupportedLayerError

from .cases import edges, features

WIDTH = 8
PTQ = nodebits.UniformConfig(mode="ptq")


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
    x, edge_index = features(cols=WIDTH), edges()
    prepared = nodebits.prepare(ByType().eval(), PTQ)
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
    nodebits.calibrate(prepared, features(cols=WIDTH))
    packed = nodebits.convert(prepared).module
    assert packed.weight.dtype == weight.dtype and packed.weight.device == weight.device
    codes, scale = prepared.quantized_weight(weight)
    assert torch.equal(packed.weight, codes * scale.view(-1, 1) if bits != 32 else weight)
    assert not [p for p in packed.parameters() if p.requires_grad] and list(packed.parameters())


def test_messages_of_single_edges_are_refused() -> None:
    x, edge_index = features(cols=WIDTH), edges()
    prepared = nodebits.prepare(GCNConv(WIDTH, WIDTH), PTQ)
    nodebits.calibrate(prepared, x, edge_index)
    packed = nodebits.convert(prepared)
    for layer in (prepared, packed.module):
        with pytest.raises(UnsupportedLayerError, match="GCNConv has none"):
            layer.explain = True
        layer.explain = None  # what explainers do when they are through
        with pytest.raises(UnsupportedLayerError, match=r"propagate\(\)"):
            layer.propagate(edge_index, x=x)
        with pytest.raises(UnsupportedLayerError, match=r"message\(\)"):
            layer.register_message_forward_hook(print)


def test_printed_models_are_short() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.MultiheadAttention(4, 2))
    text = repr(nodebits.prepare(model, nodebits.UniformConfig(bits=4)))
    assert "(0): QuantLinear(4, 4, bias=True, input: 4, weight: 4)" in text
    assert "query: 4, query_weight: 4, key: 4, key_weight: 4" in text and "out_proj" in text
    assert len(text.splitlines()) == 7
