"""Graphs of several types of edges as one, for what runs over all edges of a target at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from nodebits.core.context import current
from nodebits.core.errors import GraphError
from nodebits.graph.csr import INT32_MAX, Graph
from nodebits.ops import coo_to_csr


class Part(NamedTuple):
    """Edges of one type.

    Attributes:
        graph: Their topology.
        target: Which type of targets they lead to.
    """

    graph: Graph
    target: int


def joined_graph(parts: Sequence[Part], counts: Sequence[int]) -> Graph:
    """One graph: a row for every target of every type, and sources of every part.

    Targets stand type by type, sources part by part: those of two parts are others, though both may
    be of one type of nodes. A row has its edges in the order of the parts.

    Args:
        parts: One at least.
        counts: Number of targets of every type.

    Raises:
        GraphError: If a part has another number of targets than its type, or nodes do not fit
            int32.
    """
    key = tuple([(id(graph), target) for graph, target in parts]), tuple(counts)
    last: list[_Made] = parts[0].graph.cached("joined", list)
    for known in last[:]:
        if known.key == key:
            return known.graph
    recorder = current().recorder
    if recorder is not None and not recorder.hidden:
        graph: Graph = recorder.joined_graph(parts, counts)
    else:
        graph = _joined(parts, counts)
    last[:] = [_Made(key, tuple(parts), graph)]
    return graph


class _Made(NamedTuple):
    """The last graph of which one is a part.

    The parts are held, so that no other one gets the key of one that died.
    """

    key: Any
    parts: tuple[Part, ...]
    graph: Graph


def _joined(parts: Sequence[Part], counts: Sequence[int]) -> Graph:
    first_targets = [0, *itertools.accumulate(counts)]
    first_sources = [0, *itertools.accumulate(part.graph.num_src for part in parts)]
    for nodes, what in ((first_targets[-1], "targets"), (first_sources[-1], "sources")):
        if nodes >= INT32_MAX:
            raise GraphError(
                f"the graph of all relations has {nodes} {what}: node indices are int32, below "
                f"{INT32_MAX}; cut the graph, or sample neighbours"
            )
    rows, sources = [], []
    for part, first in zip(parts, first_sources, strict=False):
        graph = part.graph
        if graph.num_dst != counts[part.target]:
            raise GraphError(
                f"a relation leads to {graph.num_dst} targets of a type with {counts[part.target]}"
            )
        rows.append(graph.rows + first_targets[part.target])
        sources.append(graph.indices.long() + first)
    indptr, indices, _ = coo_to_csr(torch.cat(rows), torch.cat(sources), first_targets[-1])
    joined = Graph(indptr, indices, first_sources[-1])
    joined.checked = True  # of graphs that were
    return joined
