"""Layers whose messages go from targets to sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, SuperGATConv

import nodebits

from ..cases import FLOAT, WIDTH, edges, features

LAYERS: dict[str, Any] = {
    "GAT": lambda: GATConv(WIDTH, 4, 2, flow="target_to_source"),
    "GAT without loops": lambda: GATConv(WIDTH, 4, add_self_loops=False, flow="target_to_source"),
    "GATv2": lambda: GATv2Conv(WIDTH, 4, 2, flow="target_to_source"),
    "SuperGAT": lambda: SuperGATConv(WIDTH, 4, flow="target_to_source"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_pairs_are_taken_as_the_float_layer_takes_them(name: str) -> None:
    layer: nn.Module = LAYERS[name]().eval()
    x, index = features(), edges()
    expected = layer(x, index)
    torch.testing.assert_close(nodebits.prepare(layer, FLOAT).eval()(x, index), expected)
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, index)
    packed, expected = nodebits.convert(prepared).predict(x, index), expected.detach()
    assert float((packed - expected).norm() / expected.norm()) < 0.02
