"""GAT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import GATConv

from nodebits.core.errors import ConfigError
from nodebits.models.recipe import GRAPH, NODE_FIT, Recipe, register_model
from nodebits.models.spec import ModelSpec


class GATNodes(nn.Module):
    """GAT as published: several heads in hidden layers, one in the last.

    PyG's ``GAT`` model gives every layer the same number of heads, which a class count rarely
    divides.
    """

    def __init__(self, spec: ModelSpec, out_channels: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(spec.dropout)
        self.act = nn.ELU()
        convs = []
        width = spec.in_channels
        for layer in range(spec.num_layers):
            last = layer == spec.num_layers - 1
            heads = 1 if last else spec.heads
            channels = out_channels if last else spec.hidden_channels // spec.heads
            convs.append(GATConv(width, channels, heads=heads, dropout=spec.dropout))
            width = channels * heads
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, out_channels]``."""
        for layer, conv in enumerate(self.convs):
            x = conv(x, edge_index)
            if layer + 1 < len(self.convs):
                x = self.dropout(self.act(x))
        return x


_FIT = NODE_FIT.replace(lr=0.005)


@register_model(
    "gat", node=Recipe(64, 2, 8, 0.6, _FIT, _FIT), graph=replace(GRAPH, heads=8, dropout=0.0)
)
def gat(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Attention over neighbours, several heads (Velickovic et al. 2018)."""
    if spec.hidden_channels % spec.heads:
        raise ConfigError(
            f"hidden_channels is {spec.hidden_channels}: GAT needs a multiple of its {spec.heads} "
            "heads"
        )
    return GATNodes(spec, out_channels)
