"""Which rank owns which nodes, and what each has to know of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, MissingExtraError
from nodebits.distributed.hubs import HubEdges, Hubs, are_hubs
from nodebits.distributed.settings import METHODS
from nodebits.graph import Graph
from nodebits.ops.selection import take_lists


@dataclass(frozen=True)
class Part:
    """The nodes of one rank and the edges into them.

    Nodes whose edges all come from the rank's own come first: they are summed while rows of other
    ranks are on their way. Divided hubs come last; their edges are here too, as degrees and weights
    are of all of them.

    Attributes:
        nodes: int64 ``[n]``, numbers in the whole graph.
        inner: How many nodes read rows of this rank alone.
        indptr: int64 ``[n + 1]``.
        indices: int32 ``[e]``: own nodes are 0 to n - 1, then come those of other ranks, and
            then others of theirs that hubs alone read.
        edges: int64 ``[e]``, place of each edge in the order that they were given in.
        receive: Rows that come from each rank; they are numbered in this order.
        send: int64, own nodes whose rows others read, rank by rank.
        send_counts: How many of them each rank gets.
        hubs: Nodes whose edges are divided.
    """

    nodes: Tensor
    inner: int
    indptr: Tensor
    indices: Tensor
    edges: Tensor
    receive: list[int]
    send: Tensor
    send_counts: list[int]
    hubs: Hubs


def owners(
    graph: Graph, parts: int, method: str = "range", split_hubs: int | None = None
) -> Tensor:
    """The rank of every node, int64 ``[N]``.

    Args:
        graph: With as many sources as targets.
        parts: Number of ranks.
        method: ``range``: ranges of nodes with about as many nodes and edges each; ``metis``: few
            edges between ranks, which needs the extra of that name.
        split_hubs: As of :func:`divided`: edges of hubs are work of their sources' ranks.

    Raises:
        ConfigError: There is no such method, fewer nodes than parts, another kind of graph, or
            ``split_hubs`` is below 1.
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
    if split_hubs is not None and split_hubs < 1:
        raise ConfigError(f"split_hubs is {split_hubs}: expected a number of in-edges from 1 on")
    if parts == 1:
        return torch.zeros(graph.num_dst, dtype=torch.int64, device="cpu")
    hub = are_hubs(graph, split_hubs)
    return _metis(graph, parts, hub) if method == "metis" else _ranges(graph, parts, hub)


def _ranges(graph: Graph, parts: int, hub: Tensor) -> Tensor:
    count = graph.num_dst
    edges = graph.indptr.diff().masked_fill(hub, 0)
    if hub.any():
        _, sources = take_lists(graph.indptr, hub.nonzero().view(-1), graph.indices)
        edges += torch.bincount(sources, minlength=count)
    # A node costs about as much as an edge: its row is made, stored and read.
    work = (edges + 1).cumsum(0)
    targets = torch.arange(1, parts, device="cpu") * (int(work[-1]) / parts)
    bounds = torch.searchsorted(work.double(), targets.double())
    for i in range(parts - 1):  # a node each at least, also beside a hub
        before = int(bounds[i - 1]) if i else -1
        bounds[i] = min(max(int(bounds[i]), before + 1), count - parts + i)
    return torch.searchsorted(bounds, torch.arange(count, device="cpu"))


def _metis(graph: Graph, parts: int, hub: Tensor) -> Tensor:
    try:
        import pymetis
    except ImportError as error:
        raise MissingExtraError(
            "method metis needs pymetis, which is not installed: pip install 'nodebits[metis]'"
        ) from error
    rows, columns = graph.rows, graph.indices.long()
    keep = (rows != columns) & ~hub[rows]  # no row crosses for an edge into a hub
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


def divided(
    graph: Graph, owner: Tensor, parts: int, split_hubs: int | None = None
) -> Iterator[Part]:
    """The part of every rank, in their order.

    Args:
        graph: CSR, row = target.
        owner: int64 ``[N]``, from :func:`owners`.
        parts: Number of ranks.
        split_hubs: Targets with more in-edges than this are divided among the ranks of their
            sources; None divides none.
    """
    place = torch.empty_like(owner)
    hub = are_hubs(graph, split_hubs)
    own: list[Tensor] = []
    counts: list[tuple[int, int]] = []
    halos: list[tuple[Tensor, Tensor]] = []
    for rank in range(parts):
        nodes = (owner == rank).nonzero().view(-1)
        pointer, columns = take_lists(graph.indptr, nodes, graph.indices)
        outside = owner[columns.long()] != rank
        crossing = torch.cat([pointer.new_zeros(1), outside.cumsum(0)])
        reads_others = crossing[pointer[1:]] > crossing[pointer[:-1]]
        split = reads_others & hub[nodes]
        own.append(torch.cat([nodes[~reads_others], nodes[reads_others & ~split], nodes[split]]))
        counts.append((int((~reads_others).sum()), int(split.sum())))
        place[own[-1]] = torch.arange(nodes.numel(), device="cpu")
        of_hub = split.repeat_interleave(pointer.diff())
        halo = columns[outside & ~of_hub].long().unique()
        late = columns[outside & of_hub].long().unique()
        late = late[torch.isin(late, halo, invert=True)]
        halos.append((_by_rank(halo, owner), _by_rank(late, owner)))
    hubs = [nodes[nodes.numel() - count :] for nodes, (_, count) in zip(own, counts, strict=True)]
    hub_edges = HubEdges(graph, owner, hubs)
    for rank, (nodes, (halo, late)) in enumerate(zip(own, halos, strict=True)):
        tables = (graph.indices,) if graph.perm is None else (graph.indices, graph.perm)
        pointer, *lists = take_lists(graph.indptr, nodes, *tables)
        columns = lists[0].long()
        shift = (graph.indptr[nodes] - pointer[:-1]).repeat_interleave(pointer.diff())
        places = torch.arange(columns.numel(), device="cpu") + shift
        number = place.clone()
        others = torch.cat([halo, late])
        number[others] = nodes.numel() + torch.arange(others.numel(), device="cpu")
        sent = [place[other[owner[other] == rank]] for other, _ in halos]
        sent_late = [place[other[owner[other] == rank]] for _, other in halos]
        begins, sources, shares = hub_edges.share(rank)
        yield Part(
            nodes,
            counts[rank][0],
            pointer,
            number[columns].int(),
            lists[1] if graph.perm is not None else places,
            torch.bincount(owner[halo], minlength=parts).tolist(),
            torch.cat(sent),
            [rows.numel() for rows in sent],
            Hubs(
                counts[rank][1],
                torch.bincount(owner[late], minlength=parts).tolist(),
                torch.cat(sent_late),
                [rows.numel() for rows in sent_late],
                begins,
                place[sources].int(),
                shares,
            ),
        )


def _by_rank(nodes: Tensor, owner: Tensor) -> Tensor:
    return nodes[owner[nodes].argsort(stable=True)]
