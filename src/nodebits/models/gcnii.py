"""GCNII."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import GCN2Conv

from nodebits.models.recipe import NODE, register_model
from nodebits.models.spec import ModelSpec

# GCNII's strength of the identity mapping, beta_l = log(theta / l + 1).
THETA = 0.5


class GCNIIModel(nn.Module):
    """GCNII: a linear, ``num_layers`` of GCN2Conv, a linear."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        self.lin1 = nn.Linear(spec.in_channels, hidden)
        self.convs = nn.ModuleList(
            GCN2Conv(hidden, spec.teleport, THETA, layer + 1) for layer in range(spec.num_layers)
        )
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = first = self.act(self.lin1(x))
        for conv in self.convs:
            x = self.act(conv(self.dropout(x), first, edge_index))
        result: Tensor = self.lin2(self.dropout(x))
        return result


@register_model("gcnii", node=replace(NODE, layers=8))
def gcnii(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Deep, with the first layer added to every one (Chen et al. 2020)."""
    return GCNIIModel(spec, out_channels)
