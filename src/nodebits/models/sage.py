"""GraphSAGE."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GraphSAGE

from nodebits.models.recipe import GRAPH, NODE, register_model
from nodebits.models.spec import ModelSpec


@register_model("sage", node=NODE, graph=GRAPH)
def sage(spec: ModelSpec, out_channels: int) -> nn.Module:
    """A row and the mean of its neighbours (Hamilton et al. 2017)."""
    model: nn.Module = GraphSAGE(
        spec.in_channels,
        spec.hidden_channels,
        spec.num_layers,
        out_channels,
        dropout=spec.dropout,
        norm=spec.norm,
    )
    return model
