"""Targets with so many edges that these are divided too: each stays with the rank of its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.graph import Graph
from nodebits.ops.selection import take_lists


@dataclass(frozen=True)
class Hubs:
    """What a rank knows of hubs: its own ones, and edges of its nodes into those of others.

    The rows of a hub's sources cross for those layers alone whose sums are not merged of shares.

    Attributes:
        count: Own hubs, the last of the own nodes.
        receive: Rows that come from each rank for hubs that are kept whole; numbered behind those
            that other nodes read.
        send: int64, own nodes whose rows others read for their hubs alone, rank by rank.
        send_counts: How many of them each rank gets.
        indptr: int64 ``[s + 1]``, rows of hubs of others that own nodes lead to.
        indices: int32, the own nodes, in the order of the hub's edges.
        shares: Rows of hubs of each rank, in their order.
    """

    count: int
    receive: list[int]
    send: Tensor
    send_counts: list[int]
    indptr: Tensor
    indices: Tensor
    shares: list[int]

    @classmethod
    def none(cls, parts: int) -> Hubs:
        """Where no hub is divided."""
        nobody = torch.zeros(0, dtype=torch.int64, device="cpu")
        counts = [0] * parts
        one = nobody.new_zeros(1)
        return cls(0, counts, nobody, counts, one, nobody.int(), counts)


def are_hubs(graph: Graph, above: int | None) -> Tensor:
    """Which targets have more in-edges than ``above``, bool ``[N]``; none for None."""
    degree = graph.indptr.diff()
    return torch.zeros_like(degree, dtype=torch.bool) if above is None else degree > above


class HubEdges:
    """All edges into hubs, from which each rank takes its share.

    Args:
        graph: CSR, row = target.
        owner: int64 ``[N]``.
        hubs: Hubs of every rank, in their order there.
    """

    def __init__(self, graph: Graph, owner: Tensor, hubs: Sequence[Tensor]) -> None:
        self._parts = len(hubs)
        nodes = torch.cat([*hubs])
        pointer, sources = take_lists(graph.indptr, nodes, graph.indices)
        self._rows = torch.arange(nodes.numel(), device="cpu").repeat_interleave(pointer.diff())
        self._sources, self._count = sources.long(), nodes.numel()
        self._of = owner[self._sources]
        self._hub_owner = owner[nodes]

    def share(self, rank: int) -> tuple[Tensor, Tensor, list[int]]:
        """Edges from the nodes of a rank into hubs of others.

        Returns:
            Where the rows of hubs begin, sources by their number in the whole graph, and how many
            of the rows belong to each rank. A hub without such an edge has no row.
        """
        mine = (self._of == rank) & (self._hub_owner[self._rows] != rank)
        degree = torch.bincount(self._rows[mine], minlength=self._count)
        some = degree > 0
        ends = degree[some].cumsum(0)
        rows = torch.bincount(self._hub_owner[some], minlength=self._parts)
        return torch.cat([ends.new_zeros(1), ends]), self._sources[mine], rows.tolist()
