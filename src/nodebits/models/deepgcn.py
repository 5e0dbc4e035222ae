"""A deep GCN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from nodebits.models.recipe import NODE, register_model
from nodebits.models.spec import ModelSpec


class DeepGCN(nn.Module):
    """A linear, ``num_layers`` of GCNConv with norm and (by default) residual, a linear."""

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        self.lin1 = nn.Linear(spec.in_channels, hidden)
        self.convs = nn.ModuleList(GCNConv(hidden, hidden) for _ in range(spec.num_layers))
        self.norms = nn.ModuleList(
            nn.Identity() if spec.norm is None else nn.BatchNorm1d(hidden) for _ in self.convs
        )
        self.lin2 = nn.Linear(hidden, out_channels)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.residual = spec.residual

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        x = self.act(self.lin1(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            step = self.act(norm(conv(self.dropout(x), edge_index)))
            x = x + step if self.residual else step
        result: Tensor = self.lin2(self.dropout(x))
        return result


@register_model("deepgcn", node=replace(NODE, layers=8, norm="batch_norm"))
def deepgcn(spec: ModelSpec, out_channels: int) -> nn.Module:
    """GCN layers with norms and residuals (Li et al. 2019)."""
    return DeepGCN(spec, out_channels)
