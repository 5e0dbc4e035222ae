"""Models of a few layers: PyG's own, and those that PyG has in another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    GATConv,
    GINConv,
    GraphSAGE,
    global_add_pool,
    global_mean_pool,
)

from nodebits.nn.models.agnn import AGNNNodes
from nodebits.nn.models.spec import ModelSpec

SHALLOW = {"agnn": AGNNNodes, "gcn": GCN, "gin": GIN, "gat": GAT, "sage": GraphSAGE}


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


class GINClassifier(nn.Module):
    """GIN for graph tasks (Xu et al. 2019): the nodes of every layer are pooled.

    Each layer's MLP ends with its batch norm and ReLU, so that the norm folds into a linear. No
    dropout between layers, as in the Degree-Quant release.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        convs = []
        hidden, width = spec.hidden_channels, spec.in_channels
        for _ in range(spec.num_layers):
            mlp = nn.Sequential(
                nn.Linear(width, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
            )
            convs.append(GINConv(mlp, train_eps=True))
            width = hidden
        self.convs = nn.ModuleList(convs)
        self.pool = spec.pool
        pooled = spec.num_layers * hidden
        # Pooled sizes differ by orders of magnitude between layers.
        self.norm = nn.BatchNorm1d(pooled)
        self.lin1 = nn.Linear(pooled, hidden)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout)
        self.lin2 = nn.Linear(hidden, spec.out_channels)

    def forward(self, x: Tensor, edge_index: Any, batch: Tensor | None = None) -> Tensor:
        """``x`` ``[N, in_channels]``, ``batch`` int64 ``[N]`` -> ``[num_graphs, out_channels]``."""
        pool = pooling(self.pool)
        pooled = []
        for conv in self.convs:
            x = conv(x, edge_index)
            pooled.append(pool(x, batch))
        x = self.act(self.lin1(self.norm(torch.cat(pooled, dim=1))))
        result: Tensor = self.lin2(self.dropout(x))
        return result


def pooling(name: str) -> Callable[..., Tensor]:
    """Pools the nodes of every graph: ``"mean"`` or ``"add"``."""
    pool: Callable[..., Tensor] = global_mean_pool if name == "mean" else global_add_pool
    return pool


def shallow_model(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Builds the node-level model of a spec."""
    if spec.name == "gat":
        return GATNodes(spec, out_channels)
    if spec.name == "agnn":
        return AGNNNodes(
            spec.in_channels, spec.hidden_channels, out_channels, spec.num_layers, spec.dropout
        )
    options: dict[str, Any] = {"norm": spec.norm}
    if spec.name == "gin":
        # A constant epsilon keeps the first layer's sums of raw features constant, hence cached.
        options["train_eps"] = False
    model: nn.Module = SHALLOW[spec.name](
        spec.in_channels,
        spec.hidden_channels,
        spec.num_layers,
        out_channels,
        dropout=spec.dropout,
        **options,
    )
    return model
