"""Graph models with edge features, as a user would write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GATv2Conv,
    GINEConv,
    PNAConv,
    ResGatedGraphConv,
    global_mean_pool,
)

HEADS = 4


class Ids(nn.Module):
    """The sum of an embedding per column of ids."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)

    def forward(self, ids: Tensor) -> Tensor:
        """``ids`` int64 ``[N, columns]`` -> ``[N, width]``."""
        rows = [table(ids[:, column]) for column, table in enumerate(self.tables)]
        total: Tensor = rows[0]
        for row in rows[1:]:
            total = total + row
        return total


class Block(nn.Module):
    """A convolution, its norm, ReLU, dropout, and the input added to that."""

    def __init__(self, conv: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        """``x`` ``[N, width]``, ``edges`` ``[E, width]``."""
        y = self.norm(self.conv(x, edge_index, edge_attr=edges)).relu()
        result: Tensor = x + self.dropout(y)
        return result


class PlusBlock(nn.Module):
    """The block of GNN+ (arXiv 2502.09263): as :class:`Block`, then two linears and a norm."""

    def __init__(self, conv: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.local = Block(conv, width, dropout)
        self.lin1, self.lin2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.BatchNorm1d(width)

    def forward(self, x: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        """As :class:`Block`."""
        x = self.local(x, edge_index, edges)
        more = self.dropout(self.lin2(self.dropout(self.lin1(x).relu())))
        result: Tensor = self.norm(x + more)
        return result


class EdgeModel(nn.Module):
    """Encoders, blocks with one convolution each, the mean of every graph's nodes, a head.

    Args:
        conv: One of :data:`CONVS`.
        node_ids: Ids per column of ``x``; none where it is of floats.
        edge_ids: Ids per column of ``edge_attr``, likewise.
        hidden: Width.
        layers: Number of blocks.
        dropout: In every block.
        degrees: Nodes by in-degree, which PNA scales by.
        plus: Whether blocks are GNN+'s.
        node_width: Columns of an ``x`` of floats.
        edge_width: Columns of an ``edge_attr`` of floats.
        outputs: Columns of the result.
    """

    def __init__(
        self,
        conv: str,
        node_ids: Sequence[int],
        edge_ids: Sequence[int],
        hidden: int = 64,
        layers: int = 4,
        dropout: float = 0.0,
        degrees: Sequence[int] = (),
        plus: bool = False,
        node_width: int = 0,
        edge_width: int = 0,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.node = Ids(node_ids, hidden) if node_ids else nn.Linear(node_width, hidden)
        self.edge = Ids(edge_ids, hidden) if edge_ids else nn.Linear(edge_width, hidden)
        kind = PlusBlock if plus else Block
        self.blocks = nn.ModuleList(
            kind(CONVS[conv](hidden, degrees), hidden, dropout) for _ in range(layers)
        )
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """``x`` ``[N, F]``, ``edge_attr`` ``[E, G]``, ids or floats -> ``[graphs, outputs]``."""
        x, edges = self.node(x), self.edge(edge_attr)
        for block in self.blocks:
            x = block(x, edge_index, edges)
        result: Tensor = self.head(global_mean_pool(x, batch))
        return result


def _gine(width: int, degrees: Sequence[int]) -> nn.Module:
    mlp = nn.Sequential(
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
    )
    return GINEConv(mlp, train_eps=True)


def _gated(width: int, degrees: Sequence[int]) -> nn.Module:
    return ResGatedGraphConv(width, width, edge_dim=width)


def _pna(width: int, degrees: Sequence[int]) -> nn.Module:
    return PNAConv(
        width,
        width,
        aggregators=["mean", "max", "min", "std"],
        scalers=["identity", "amplification", "attenuation"],
        deg=torch.tensor(degrees, device="cpu"),
        edge_dim=width,
        towers=HEADS,
        divide_input=True,
    )


def _gatv2(width: int, degrees: Sequence[int]) -> nn.Module:
    return GATv2Conv(width, width // HEADS, heads=HEADS, edge_dim=width)


CONVS: dict[str, Callable[[int, Sequence[int]], nn.Module]] = {
    "gine": _gine,
    "gated": _gated,
    "pna": _pna,
    "gatv2": _gatv2,
}
# What is measured: arguments of EdgeModel by the model's name.
MODELS: dict[str, dict[str, Any]] = {
    "GINE": {"conv": "gine"},
    "GatedGCN": {"conv": "gated"},
    "GATv2": {"conv": "gatv2"},
    "PNA": {"conv": "pna"},
    "GNN+": {"conv": "gated", "plus": True},
}
