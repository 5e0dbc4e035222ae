"""GCN."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GCN

from nodebits.models.recipe import GRAPH, NODE, register_model
from nodebits.models.spec import ModelSpec


@register_model("gcn", node=NODE, graph=GRAPH)
def gcn(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Normalised sums over neighbours (Kipf and Welling 2017)."""
    model: nn.Module = GCN(
        spec.in_channels,
        spec.hidden_channels,
        spec.num_layers,
        out_channels,
        dropout=spec.dropout,
        norm=spec.norm,
    )
    return model
