"""The graph of a session: the edges into every node, and those out of it."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.graph import Graph
from nodebits.graph.csr import INT32_MAX
from nodebits.ops import coo_to_csr
from nodebits.ops.changing import ChangingRows, SumChange
from nodebits.plan.by_row import EdgeRows


class ChangingGraph:
    """Edges by target, with their weights, and by source.

    Args:
        graph: With as many sources as targets; it is copied.
    """

    def __init__(self, graph: Graph) -> None:
        self._into = ChangingRows(graph.indptr, graph.indices, graph.edge_weight)
        indptr, indices, _ = coo_to_csr(graph.indices.long(), graph.rows, graph.num_src)
        self._out = ChangingRows(indptr, indices)
        #: Edges from a node to itself.
        self.num_loops = int((graph.indices == graph.rows).sum())

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self._into.num_rows

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self._into.num_entries

    @property
    def weighted(self) -> bool:
        """Whether edges have weights."""
        return self._into.weighted

    def add_nodes(self, count: int) -> None:
        """More nodes, without edges; see :meth:`check_room`."""
        self._into.extend(count)
        self._out.extend(count)

    def check_room(self, count: int) -> None:
        """Whether there may be so many nodes more.

        Raises:
            GraphError: If int32 cannot number them.
        """
        if self.num_nodes + count > INT32_MAX:
            raise GraphError(
                f"a graph of {self.num_nodes} nodes gets {count} more: int32 numbers {INT32_MAX}"
            )

    def add(self, edges: Tensor, weight: Tensor | None) -> None:
        """Adds edges, each at the end of its target's row.

        Args:
            edges: int64 ``[2, k]``, checked.
            weight: float32 ``[k]``, or None.
        """
        source, target = edges.contiguous()
        self._into.append(target, source, weight)
        self._out.append(source, target)
        self.num_loops += int((source == target).sum())

    def missing(self, edges: Tensor) -> int:
        """The position of the first edge that could not be taken out with those before it; -1."""
        source, target = edges.contiguous()
        return self._into.missing(target, source)

    def remove(self, edges: Tensor) -> int:
        """Takes edges out; of parallel ones that which came last.

        Returns:
            -1; or the position of the first that is not there, and the graph is as it was.
        """
        source, target = edges.contiguous()
        missing = self._into.remove(target, source)
        if missing < 0:
            self._out.remove(source, target)
            self.num_loops -= int((source == target).sum())
        return missing

    def edges_at(self, nodes: Tensor) -> Tensor:
        """All edges into nodes and out of them, each once: int64 ``[2, k]``."""
        indptr, sources, _ = self._into.gather(nodes)
        into = torch.stack([sources.long(), nodes.repeat_interleave(indptr.diff())])
        indptr, targets, _ = self._out.gather(nodes)
        out = torch.stack([nodes.repeat_interleave(indptr.diff()), targets.long()])
        return torch.cat([into, out[:, ~torch.isin(out[1], nodes)]], 1)

    def rows(self, nodes: Tensor, loops: bool) -> EdgeRows:
        """The edges into nodes; see :meth:`nodebits.plan.by_row.RowSource.edges`."""
        return EdgeRows(*self._into.gather(nodes, loops))

    def in_degree(self, nodes: Tensor, loops: bool = False) -> Tensor:
        """Edges into nodes, int64 ``[k]``."""
        return self._into.counts(nodes, loops)

    def targets(self, sources: Tensor, loops: bool) -> Tensor:
        """Targets of all edges out of nodes, int64, also more than once."""
        return self._out.gather(sources, loops)[1].long()

    def distinct(self, *lists: Tensor) -> Tensor:
        """Nodes that are named in some lists, each once."""
        return self._into.distinct(lists)

    def change(self, changed: Tensor, loops: bool, added: Tensor, removed: Tensor) -> SumChange:
        """How sums change, see :meth:`nodebits.ops.changing.ChangingRows.change`."""
        return self._out.change(changed, loops, added, removed)

    def whole(self) -> Graph:
        """The graph as it is, in rows."""
        rows = self._into.gather(torch.arange(self.num_nodes, device="cpu"))
        return Graph(rows[0], rows[1], self.num_nodes, None, rows[2])
