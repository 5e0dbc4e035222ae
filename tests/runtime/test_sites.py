"""Every site says its width, its range and what runs behind it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GCNConv

import nodebits
from nodebits.core.errors import NothingToQuantizeError


class OwnAttention(GATv2Conv):
    """A subclass runs its own messages."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(8, 8), OwnAttention(8, 4, edge_dim=3)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Any:
        return self.norm(self.second(self.first(x, edge_index).relu(), edge_index, edge_attr))


def test_the_lines_of_a_model_before_and_after_conversion() -> None:
    x, edges, attributes = torch.randn(9, 8), torch.randint(9, (2, 30)), torch.randn(30, 3)
    prepared = nodebits.prepare(Net().eval(), nodebits.UniformConfig(bits=4, mode="ptq"))
    assert "message_x " in str(nodebits.sites(prepared))
    nodebits.calibrate(prepared, x, edges, attributes)
    before = {line.path: line for line in nodebits.sites(prepared)}
    after = {line.path: line for line in nodebits.sites(nodebits.convert(prepared))}
    assert before == after
    assert before["first.message"].runs == "integer sum" and before["first.message"].bits == 4
    assert before["first.lin.weight"].runs == "integer product"
    message = before["second.message_x"]
    assert message.runs == "integer sum" and message.granularity == "column"
    assert message.low is not None and message.high is not None and message.low < 0 < message.high
    assert before["norm (LayerNorm)"].runs == "float"
    assert before["second.message_edge_attr"].runs == "tiled"
    assert before["second.attention_alpha"].runs == "integer sum"
    assert before["second.attention_alpha"].granularity == "target"
    assert "second.message_x_dst" in before and "second.message_alpha" not in before
    assert before["second.lin_edge.input"].runs == "integer product"


def test_floats_are_told_before_conversion_too() -> None:
    config = nodebits.UniformConfig(overrides={"first.weight": 32, "last.input": 32})
    model = nn.ModuleDict({"first": nn.Linear(4, 4), "last": nn.Linear(4, 2)})
    lines = {s.path: (s.bits, s.runs) for s in nodebits.sites(nodebits.prepare(model, config))}
    assert lines == {
        "first.input": (8, "float"),
        "first.weight": (32, "float"),
        "last.input": (32, "float"),
        "last.weight": (8, "float"),
    }


def test_a_float_model_has_none() -> None:
    with pytest.raises(NothingToQuantizeError, match="prepare"):
        nodebits.sites(Net())
