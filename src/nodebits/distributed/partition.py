"""Which rank owns which nodes, and what each has to know of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, MissingExtraError
from nodebits.distributed.settings import METHODS
from nodebits.graph import Graph
from nodebits.ops.selection import take_lists


@dataclass(frozen=True)
class Part:
    """The nodes of one rank and the edges into them.

    Nodes whose edges all come from the rank's own come first: they are summed while rows of other
    ranks are on their way.

    Attributes:
        nodes: int64 ``[n]``, numbers in the whole graph.
        inner: How many nodes read rows of this rank alone.
        indptr: int64 ``[n + 1]``.
        indices: int32 ``[e]``: own nodes are 0 to n - 1, then come those of other ranks.
        edges: int64 ``[e]``, place of each edge in the order that they were given in.
        receive: Rows that come from each rank; they are numbered in this order.
        send: int64, own nodes whose rows others read, rank by rank.
        send_counts: How many of them each rank gets.
    """

    nodes: Tensor
    inner: int
    indptr: Tensor
    indices: Tensor
    edges: Tensor
    receive: list[int]
    send: Tensor
    send_counts: list[int]


def owners(graph: Graph, parts: int, method: str = "range") -> Tensor:
    """The rank of every node, int64 ``[N]``.

    Args:
        graph: With as many sources as targets.
        parts: Number of ranks.
        method: ``range``: ranges of nodes with about as many nodes and edges each; ``metis``: few
            edges between ranks, which needs the extra of that name.

    Raises:
        ConfigError: There is no such method, fewer nodes than parts, or another kind of graph.
        MissingExtraError: The extra is not installed.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    if graph.num_src != graph.num_dst:
        raise ConfigError(
            f"the graph has {graph.num_src} sources and {graph.num_dst} targets: only one with as "
            "many of both is divided"
        )
    if not 1 <= parts <= max(graph.num_dst, 1):
        raise ConfigError(f"parts is {parts}: expected 1 to {graph.num_dst}, a node each at least")
    if parts == 1:
        return torch.zeros(graph.num_dst, dtype=torch.int64, device="cpu")
    return _metis(graph, parts) if method == "metis" else _ranges(graph, parts)


def _ranges(graph: Graph, parts: int) -> Tensor:
    count = graph.num_dst
    # A node costs about as much as an edge: its row is made, stored and read.
    work = graph.indptr[1:] + torch.arange(1, count + 1, device="cpu")
    targets = torch.arange(1, parts, device="cpu") * (int(work[-1]) / parts)
    bounds = torch.searchsorted(work.double(), targets.double())
    for i in range(parts - 1):  # a node each at least, also beside a hub
        before = int(bounds[i - 1]) if i else -1
        bounds[i] = min(max(int(bounds[i]), before + 1), count - parts + i)
    return torch.searchsorted(bounds, torch.arange(count, device="cpu"))


def _metis(graph: Graph, parts: int) -> Tensor:
    try:
        import pymetis
    except ImportError as error:
        raise MissingExtraError(
            "method metis needs pymetis, which is not installed: pip install 'nodebits[metis]'"
        ) from error
    rows, columns = graph.rows, graph.indices.long()
    keep = rows != columns
    ends = torch.cat([rows[keep] * graph.num_dst + columns[keep],
                      columns[keep] * graph.num_dst + rows[keep]]).unique()  # fmt: skip
    counts = torch.bincount(ends // graph.num_dst, minlength=graph.num_dst)
    pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    neighbors = (ends % graph.num_dst).numpy()
    adjacency = pymetis.CSRAdjacency(pointer.numpy(), neighbors)
    _, found = pymetis.part_graph(parts, adjacency)
    owner = torch.tensor(found, dtype=torch.int64, device="cpu")
    empty = [rank for rank in range(parts) if not bool((owner == rank).any())]
    for rank in empty:  # METIS may leave one out of a small graph
        largest = int(torch.bincount(owner, minlength=parts).argmax())
        owner[int((owner == largest).nonzero()[0])] = rank
    return owner


def divided(graph: Graph, owner: Tensor, parts: int) -> Iterator[Part]:
    """The part of every rank, in their order.

    Args:
        graph: CSR, row = target.
        owner: int64 ``[N]``, from :func:`owners`.
        parts: Number of ranks.
    """
    place = torch.empty_like(owner)
    own: list[Tensor] = []
    inner: list[int] = []
    halos: list[Tensor] = []
    for rank in range(parts):
        nodes = (owner == rank).nonzero().view(-1)
        pointer, columns = take_lists(graph.indptr, nodes, graph.indices)
        outside = owner[columns.long()] != rank
        crossing = torch.cat([pointer.new_zeros(1), outside.cumsum(0)])
        reads_others = crossing[pointer[1:]] > crossing[pointer[:-1]]
        own.append(torch.cat([nodes[~reads_others], nodes[reads_others]]))
        inner.append(int((~reads_others).sum()))
        place[own[-1]] = torch.arange(nodes.numel(), device="cpu")
        halo = columns[outside].long().unique()
        halos.append(halo[owner[halo].argsort(stable=True)])
    for rank, (nodes, halo) in enumerate(zip(own, halos, strict=True)):
        tables = (graph.indices,) if graph.perm is None else (graph.indices, graph.perm)
        pointer, *lists = take_lists(graph.indptr, nodes, *tables)
        columns = lists[0].long()
        shift = (graph.indptr[nodes] - pointer[:-1]).repeat_interleave(pointer.diff())
        places = torch.arange(columns.numel(), device="cpu") + shift
        number = place.clone()
        number[halo] = nodes.numel() + torch.arange(halo.numel(), device="cpu")
        sent = [place[other[owner[other] == rank]] for other in halos]
        yield Part(
            nodes,
            inner[rank],
            pointer,
            number[columns].int(),
            lists[1] if graph.perm is not None else places,
            torch.bincount(owner[halo], minlength=parts).tolist(),
            torch.cat(sent),
            [rows.numel() for rows in sent],
        )
