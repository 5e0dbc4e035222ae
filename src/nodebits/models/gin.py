"""GIN: PyG's model on nodes, Xu et al.'s classifier on graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GIN, GINConv

from nodebits.models.pooling import pooling
from nodebits.models.recipe import GRAPH, NODE_FIT, Recipe, register_model
from nodebits.models.spec import ModelSpec


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


# Chosen on the validation splits of Cora and CiteSeer: sums want counts, not shares; two-layer
# MLPs overfit 140 labels; rounding and the teacher regularise the quantized model already.
_NODE = Recipe(
    64,
    2,
    1,
    0.8,
    NODE_FIT.replace(weight_decay=5e-3),
    NODE_FIT,
    quantized_dropout=0.5,
    normalize_features=False,
)


@register_model("gin", GINClassifier, node=_NODE, graph=replace(GRAPH, layers=5))
def gin(spec: ModelSpec, out_channels: int) -> nn.Module:
    """Sums over neighbours and an MLP per layer (Xu et al. 2019)."""
    model: nn.Module = GIN(
        spec.in_channels,
        spec.hidden_channels,
        spec.num_layers,
        out_channels,
        dropout=spec.dropout,
        norm=spec.norm,
        # A constant epsilon keeps the first layer's sums of raw features constant, hence cached.
        train_eps=False,
    )
    return model
