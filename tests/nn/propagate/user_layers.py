"""Layers that a user wrote, without a word of nodebits in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, MessagePassing, TransformerConv
from torch_geometric.utils import softmax


class OwnGATv2(GATv2Conv):
    """A subclass, which runs its own messages."""


class OwnTransformer(TransformerConv):
    """Likewise."""


class EdgeAttention(MessagePassing):
    """Attention of two heads over both ends and the features of the edge."""

    def __init__(self, channels: int, edge_dim: int, heads: int = 2) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.heads, self.width = heads, channels // heads
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.edge = nn.Linear(channels, channels), nn.Linear(edge_dim, channels)
        self._weights: Tensor | None = None

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, keep: bool = False):  # type: ignore[no-untyped-def]
        shape = (-1, self.heads, self.width)
        out = self.propagate(
            edge_index,
            query=self.query(x).view(shape),
            key=self.key(x).view(shape),
            value=self.value(x).view(shape),
            edge_attr=edge_attr,
        )
        weights, self._weights = self._weights, None
        out = out.reshape(x.size(0), -1)
        return (out, weights) if keep else out

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        edge_attr: Tensor,
        index: Tensor,
        size_i: int | None,
    ) -> Tensor:
        edge = self.edge(edge_attr).view(-1, self.heads, self.width)
        score = (query_i * (key_j + edge)).sum(-1) / self.width**0.5
        weights = softmax(score, index, num_nodes=size_i)
        self._weights = weights
        return (value_j + edge) * weights.unsqueeze(-1)


class GatedSum(MessagePassing):
    """Messages that a gate of both ends lets through."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="add")
        self.gate, self.lin = nn.Linear(2 * channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x) + self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(torch.cat([x_i, x_j], -1))) * x_j


class MaxOfDifferences(MessagePassing):
    """The largest difference to a neighbour, in every column."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="max")
        self.lin = nn.Linear(channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.propagate(edge_index, x=x))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_j - x_i

    def update(self, aggr_out: Tensor, x: Tensor) -> Tensor:
        return aggr_out + x


class Plain(MessagePassing):
    """Functions without annotations, one of whose arguments is never given."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(channels, channels)

    def forward(self, x, edge_index):  # type: ignore[no-untyped-def]
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j, ptr, gain=0.5):  # type: ignore[no-untyped-def]
        return torch.tanh(gain * x_j)
