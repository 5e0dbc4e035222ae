"""Samples of neighbours for PyG's ``NeighborLoader``, which has none without pyg-lib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.sampler import BaseSampler, NodeSamplerInput, SamplerOutput

from nodebits.core.errors import ConfigError, GraphError
from nodebits.graph import Graph, as_graph, sample_neighbors


class NeighborSampler(BaseSampler):  # type: ignore[misc]
    """Draws what ``NeighborLoader`` draws, by the sampler of this library.

    The loader takes it as its argument ``neighbor_sampler``::

        sampler = NeighborSampler(data, [10, 10])
        loader = NeighborLoader(data, [10, 10], neighbor_sampler=sampler, input_nodes=nodes)

    Samples are drawn from torch's generator; ``torch.manual_seed`` repeats them.
    """

    def __init__(
        self, data: Data | Tensor | Graph, num_neighbors: Sequence[int], *, replace: bool = False
    ) -> None:
        """Sorts the edges once.

        Args:
            data: The whole graph with ``edge_index``, or its edges int64 ``[2, E]``.
            num_neighbors: Edges of a node that are followed in each hop; -1 for all.
            replace: Whether an edge may be drawn twice.

        Raises:
            ConfigError: If ``num_neighbors`` is no list of such numbers.
            GraphError: If ``data`` has no ``edge_index``.
            NodeIndexError: If an edge names a node that does not exist.
        """
        self.num_neighbors, self.replace = list(num_neighbors), replace
        self._graph = _graph_of(data)
        nobody = torch.empty(0, dtype=torch.int64, device="cpu")
        sample_neighbors(self._graph, nobody, self.num_neighbors, seed=0, replace=replace)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """The neighbourhood of some nodes, these first.

        Raises:
            ConfigError: If a node stands twice, or times are asked for.
            NodeIndexError: If a node does not exist.
        """
        del kwargs
        if index.time is not None:
            raise ConfigError("input_time is given: this sampler draws from all edges at all times")
        found = sample_neighbors(self._graph, index.node, self.num_neighbors, replace=self.replace)
        count = index.node.numel()
        if found.reached[0] != count:
            raise ConfigError(
                f"a batch asks for {count} nodes, of which {found.reached[0]} differ: a loader's "
                "input_nodes must name each node once"
            )
        return SamplerOutput(
            node=found.nodes,
            row=found.graph.indices.long(),
            col=found.graph.rows,
            edge=found.edges,
            num_sampled_nodes=found.nodes_per_hop,
            num_sampled_edges=found.edges_per_hop,
            metadata=(index.input_id, index.time),
        )

    def sample_from_edges(self, index: Any, neg_sampling: Any = None) -> SamplerOutput:
        """Not there.

        Raises:
            ConfigError: Always.
        """
        del index, neg_sampling
        raise ConfigError("batches of links are not sampled here: PairProblem trains on links")


def _graph_of(data: Data | Tensor | Graph) -> Graph:
    if isinstance(data, Graph):
        return data
    if isinstance(data, Tensor):
        count = int(data.max()) + 1 if data.numel() else 0
        return as_graph(data, count, count)
    edges = data.get("edge_index", data.get("adj_t")) if isinstance(data, Data) else None
    if edges is None:
        raise GraphError(
            f"data is a {type(data).__name__} without edge_index: pass the Data of one graph"
        )
    return as_graph(edges, data.num_nodes, data.num_nodes)
