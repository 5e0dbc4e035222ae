"""What new nodes depend on: a part of the graph that gives them the rows of the whole one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.graph import Graph
from nodebits.ops.selection import take_lists
from nodebits.serving.questions import NewNodes


@dataclass(frozen=True)
class Part:
    """Nodes with all edges into those that matter.

    Attributes:
        known: int64 ``[n]``, nodes of the data; the new ones come before them.
        edges: int64 ``[2, e]`` among new and known nodes, of each target in the order of the whole.
        known_edges: int64, place of each edge of the data that is there, in the order they have.
        new_edges: int64, place of each edge of the question.
    """

    known: Tensor
    edges: Tensor
    known_edges: Tensor
    new_edges: Tensor


def part_around(graph: Graph, asked: NewNodes, reach: int) -> Part:
    """All nodes that new ones depend on, and the edges among them.

    Args:
        graph: Of the data, N nodes.
        asked: New nodes and their edges.
        reach: Hops of nodes whose edges matter, see :func:`nodebits.plan.trim.reach`.
    """
    count, new = graph.num_dst, asked.x.size(0)
    source, target = asked.edges
    seen = torch.zeros(count + new, dtype=torch.bool, device="cpu")
    frontier = torch.arange(count, count + new, device="cpu")
    seen[frontier] = True
    nodes, own, added = [frontier], [], []
    tables = (graph.indices,) if graph.perm is None else (graph.indices, graph.perm)
    for _ in range(reach + 1):
        at = torch.zeros(count + new, dtype=torch.bool, device="cpu")
        at[frontier] = True
        known = frontier[frontier < count]
        pointer, *lists = take_lists(graph.indptr, known, *tables)
        sources = lists[0].long()
        degrees = pointer.diff()
        if graph.perm is None:
            shift = graph.indptr[known] - pointer[:-1]
            places = torch.arange(sources.numel(), device="cpu") + shift.repeat_interleave(degrees)
        else:
            places = lists[1]
        own.append(torch.stack([sources, known.repeat_interleave(degrees), places]))
        extra = at[target].nonzero().view(-1)
        added.append(extra)
        reached = torch.cat([sources, source[extra]])
        frontier = reached[~seen[reached]].unique()
        if not frontier.numel():
            break
        seen[frontier] = True
        nodes.append(frontier)
    return _numbered(torch.cat(nodes), torch.cat(own, 1), torch.cat(added), asked, count)


def _numbered(nodes: Tensor, own: Tensor, added: Tensor, asked: NewNodes, count: int) -> Part:
    """The part, with new nodes numbered first; edges of the question come last, as given."""
    new, known = asked.x.size(0), nodes[nodes < count]
    number = torch.empty(count + new, dtype=torch.int64, device="cpu")
    number[count:] = torch.arange(new, device="cpu")
    number[known] = torch.arange(new, new + known.numel(), device="cpu")
    own, added = own[:, own[2].argsort()], added.sort().values
    edges = torch.cat([own[:2], asked.edges[:, added]], 1)
    return Part(known, number[edges], own[2], added)
