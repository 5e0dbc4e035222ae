"""Samples of a graph: the neighbourhood of some nodes, as a graph with numbers of its own."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, GraphError, ShapeError
from nodebits.graph.csr import Graph
from nodebits.graph.reorder import ReorderedGraph
from nodebits.ops.sampling import ALL, MOST_DRAWS
from nodebits.ops.sampling import sample_neighbors as draw

_MOST_SEED = 2**63 - 1
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Sample:
    """The neighbourhood of some nodes, like a batch of PyG's ``NeighborLoader``.

    Attributes:
        nodes: int64 ``[n]``, numbers in the whole graph, in order of first appearance.
        graph: The edges that were followed, among ``n`` nodes.
        edges: int64 ``[e]``, place of each edge in the order that the user gave the edges in.
        seeds: int64 ``[k]``, place in ``nodes`` of every node that was asked for.
        reached: Nodes that are there after the seeds, and after each hop.
    """

    nodes: Tensor
    graph: Graph
    edges: Tensor
    seeds: Tensor
    reached: list[int]

    def to(self, device: torch.device) -> Sample:
        """The same sample on a device; itself where it is there."""
        if self.nodes.device == device:
            return self
        graph = self.graph
        weight = None if graph.edge_weight is None else graph.edge_weight.to(device)
        made = Graph(
            graph.indptr.to(device), graph.indices.to(device), graph.num_src, None, weight,
            graph.form,
        )  # fmt: skip
        made.checked = graph.checked
        nodes, edges, seeds = (one.to(device) for one in (self.nodes, self.edges, self.seeds))
        return Sample(nodes, made, edges, seeds, self.reached)

    @property
    def nodes_per_hop(self) -> list[int]:
        """Nodes that are new: the seeds, then those of each hop."""
        return [after - before for before, after in pairwise([0, *self.reached])]

    @property
    def edges_per_hop(self) -> list[int]:
        """Edges that each hop follows."""
        ends = [int(self.graph.indptr[nodes]) for nodes in (0, *self.reached[:-1])]
        return [after - before for before, after in pairwise(ends)]


def sample_neighbors(
    graph: Graph,
    node_ids: Any,
    num_neighbors: Sequence[int],
    *,
    seed: int | None = None,
    replace: bool = False,
) -> Sample:
    """Samples as ``NeighborLoader(..., disjoint=False, subgraph_type="directional")`` does.

    Time follows from what is reached, not from the size of the graph.

    Args:
        graph: With as many sources as targets, and not reordered.
        node_ids: Integers ``[k]``: a tensor, an array or a list; a node may stand twice.
        num_neighbors: Edges of a node that are followed in each hop; -1 for all.
        seed: 0 to 2^63 - 1: the same one draws the same sample on every machine, with any number
            of threads. None draws one from torch's generator.
        replace: Whether an edge may be drawn twice.

    Raises:
        NodeIndexError: If a node does not exist.
        ShapeError: If ``node_ids`` are no list of integers.
        ConfigError: If ``num_neighbors`` or ``seed`` is none, or the graph is reordered.
        GraphError: If the graph is bipartite.
    """
    _check_graph(graph)
    fanouts = _fanouts(num_neighbors)
    ids = as_node_ids(node_ids, graph.device)
    found = draw(graph.validate().indptr, graph.indices, ids, fanouts, _seed(seed), _flag(replace))
    weight = None if graph.edge_weight is None else graph.edge_weight.index_select(0, found.edges)
    made = Graph(found.indptr, found.indices, found.nodes.numel(), None, weight, graph.form)
    made.checked = True
    edges = found.edges if graph.perm is None else graph.perm.index_select(0, found.edges)
    return Sample(found.nodes, made, edges, found.seeds, found.reached)


def _check_graph(graph: Graph) -> None:
    if isinstance(graph, ReorderedGraph):
        raise ConfigError(
            "the graph is reordered, which helps sums over all of it: sample from the graph that "
            "prepare_graph makes without reorder"
        )
    if graph.num_src != graph.num_dst:
        raise GraphError(
            f"the graph has {graph.num_src} sources and {graph.num_dst} targets: only one with as "
            "many of both is sampled, since every hop goes on from the sources of the last"
        )


def _integer(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}: expected an integer") from None


def _fanouts(num_neighbors: Any) -> list[int]:
    if isinstance(num_neighbors, str | dict) or not hasattr(num_neighbors, "__iter__"):
        raise ConfigError(
            f"num_neighbors is {num_neighbors!r}: expected a number for each hop, such as [10, 10]"
        )
    fanouts = [_integer(v, f"num_neighbors[{hop}]") for hop, v in enumerate(num_neighbors)]
    if not fanouts:
        raise ConfigError(
            "num_neighbors is empty: give a number for each hop, as a rule one per layer"
        )
    for hop, fanout in enumerate(fanouts):
        if not ALL <= fanout <= MOST_DRAWS:
            raise ConfigError(
                f"num_neighbors[{hop}] is {fanout}: expected 0 to {MOST_DRAWS}, or -1 for all "
                "neighbours"
            )
    return fanouts


def _seed(seed: Any) -> int:
    if seed is None:
        return int(torch.randint(_MOST_SEED, (), device="cpu"))
    value = _integer(seed, "seed")
    if not 0 <= value <= _MOST_SEED:
        raise ConfigError(f"seed is {value}: expected 0 to 2^63 - 1, or None for a fresh one")
    return value


def _flag(replace: Any) -> bool:
    if not isinstance(replace, bool):
        raise ConfigError(f"replace is {replace!r}: expected True or False")
    return replace


def as_node_ids(node_ids: Any, device: torch.device, name: str = "node_ids") -> Tensor:
    """Nodes as int64 ``[k]``, of a tensor, an array or a list; not compared with the nodes there.

    Raises:
        ShapeError: If they are no list of integers.
    """
    if not isinstance(node_ids, Tensor):
        if isinstance(node_ids, list | tuple | range) and not len(node_ids):
            node_ids = torch.empty(0, dtype=torch.int64, device=device)
        try:
            node_ids = torch.as_tensor(node_ids, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"{name} are {node_ids!r:.80}: expected a list of integers ({error})"
            ) from None
    if node_ids.dtype not in _INTEGERS or node_ids.layout != torch.strided:
        mask = " (of a mask: mask.nonzero().view(-1))" if node_ids.dtype == torch.bool else ""
        raise ShapeError(f"{name} are {node_ids.dtype}: expected integers{mask}")
    if node_ids.dim() != 1:
        raise ShapeError(
            f"{name} have shape {list(node_ids.shape)}: expected a list, [k], also of one node"
        )
    ids: Tensor = node_ids.to(device, torch.int64)
    return ids
