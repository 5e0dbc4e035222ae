"""Compressed rows of a graph, with everything a layer needs about its topology, computed once.

Rows are targets: row i lists the sources whose messages node i sums, in the order PyG gives the
    edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from nodebits.core.errors import AccumulatorOverflowError, GraphError, NodeIndexError
from nodebits.ops import coo_to_csr, edge_block_sizes, edge_blocks

INT32_MAX = 2**31 - 1


class Graph:
    """CSR adjacency (row = target) with cached derived facts.

    Accepted by every nodebits layer in place of ``edge_index``.

    Args:
        indptr: int64 ``[num_dst + 1]``.
        indices: int32 ``[E]``, source of each edge.
        num_src: Number of source nodes.
        perm: int64 ``[E]``: position in the original edge list, or None where the order is
            unchanged.
        edge_weight: float32 ``[E]`` in CSR order, or None.
        valued: Whether the adjacency came with values (all 1 where ``edge_weight`` is None).
    """

    def __init__(
        self,
        indptr: Tensor,
        indices: Tensor,
        num_src: int,
        perm: Tensor | None = None,
        edge_weight: Tensor | None = None,
        valued: bool = False,
    ) -> None:
        self.valued = valued or edge_weight is not None
        self.indptr, self.indices, self.num_src = indptr, indices, num_src
        self.perm, self.edge_weight = perm, edge_weight
        self._cache: dict[Any, Any] = {}

    @property
    def num_dst(self) -> int:
        """Number of target nodes."""
        return self.indptr.numel() - 1

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.indices.numel()

    @property
    def device(self) -> torch.device:
        """Device of the index arrays."""
        return self.indices.device

    def __repr__(self) -> str:
        return f"Graph(num_src={self.num_src}, num_dst={self.num_dst}, num_edges={self.num_edges})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns the value made for ``key`` at the first call."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def cached_for(self, source: Tensor, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Like :meth:`cached`, for a value of ``source``: made again when that tensor changes.

        Only for constants: where ``source`` carries a gradient the value is made every time. It is
        forgotten with ``source``.
        """
        if source.requires_grad or source.is_inference():
            return make()
        known = self.cached(("for", key), WeakIdKeyDictionary)
        version, value = known.get(source, (-1, None))
        if value is None or version != source._version:
            value = make()
            if not value.requires_grad:
                known[source] = source._version, value
        made: Tensor = value
        return made

    @property
    def degree(self) -> Tensor:
        """In-degree of every target, float32 ``[num_dst]``."""
        value: Tensor = self.cached("degree", lambda: self.indptr.diff().float())
        return value

    @property
    def inverse_degree(self) -> Tensor:
        """``1 / degree``, 0 for isolated targets (PyG's mean of nothing), float32 ``[num_dst]``."""

        def make() -> Tensor:
            return torch.where(self.degree > 0, 1.0 / self.degree.clamp_min(1.0), 0.0)

        value: Tensor = self.cached("inverse_degree", make)
        return value

    @property
    def max_degree(self) -> int:
        """Largest in-degree, 0 for a graph without edges."""
        value: int = self.cached(
            "max_degree", lambda: int(self.indptr.diff().max()) if self.num_dst else 0
        )
        return value

    @property
    def fingerprint(self) -> int:
        """A number that tells this topology from others, whatever the order of its edges.

        63 bits of a sum over edges of a mixed product of both ends: equal graphs have equal
        fingerprints, others differ but for a chance of about 2^-60.
        """

        def make() -> int:
            # Odd multipliers; int64 wraps, and a wrapped sum is the same in any order.
            target = (self.rows + 1) * -7046029254386353131
            source = (self.indices.long() + 1) * -4417276706812531889
            mixed = (target ^ (target >> 29)) * (source ^ (source >> 31))
            edges = int((mixed ^ (mixed >> 27)).sum()) if self.num_edges else 0
            shape = self.num_src * 1_000_003 + self.num_dst
            return (edges + shape * 2_654_435_761) & (2**63 - 1)

        value: int = self.cached("fingerprint", make)
        return value

    @property
    def rows(self) -> Tensor:
        """Target of every edge in CSR order, int64 ``[E]``."""

        def make() -> Tensor:
            nodes = torch.arange(self.num_dst, device=self.device)
            return torch.repeat_interleave(nodes, self.indptr.diff(), output_size=self.num_edges)

        value: Tensor = self.cached("rows", make)
        return value

    def edge_index(self) -> Tensor:
        """The edges as int64 ``[2, E]``, source then target, in the order they were given in."""
        edges = torch.stack([self.indices.long(), self.rows])
        return (
            edges if self.perm is None else torch.empty_like(edges).index_copy(1, self.perm, edges)
        )

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """CSR of the reversed edges, for the gradient of a neighbour sum.

        Returns:
            ``(indptr, indices, order)``: int64 ``[num_src + 1]``, int32 ``[E]`` (targets), and
            int64 ``[E]``, the position in this graph's edge order.
        """
        value: tuple[Tensor, Tensor, Tensor] = self.cached(
            "transposed", lambda: coo_to_csr(self.indices.long(), self.rows, self.num_src)
        )
        return value

    def blocks(self, row_bytes: int) -> Tensor | None:
        """The edges regrouped for the sum of a large table of packed rows; None if that is slower.

        Made at the first call and kept: about a second per 10^8 edges and two bytes per edge. See
        :func:`nodebits.ops.edge_blocks`.

        Args:
            row_bytes: Bytes of one packed row.
        """
        if self.device.type != "cpu":
            return None
        sizes = self.cached(
            ("block sizes", row_bytes),
            lambda: edge_block_sizes(self.num_dst, self.num_src, self.num_edges, row_bytes),
        )
        if sizes is None:
            return None
        value: Tensor = self.cached(
            ("blocks", sizes),
            lambda: edge_blocks(self.indptr, self.indices, self.num_src, sizes),
        )
        return value

    def check_accumulator(self, max_code: int, max_weight: int = 1) -> None:
        """Refuses a graph whose integer sums could pass int32.

        Args:
            max_code: Largest message code.
            max_weight: Largest edge code, 1 for unit weights.

        Raises:
            AccumulatorOverflowError: Names the row, its degree and the bound.
        """
        bound = INT32_MAX // (max_code * max_weight)
        if self.max_degree > bound:
            row = int(self.indptr.diff().argmax())
            raise AccumulatorOverflowError(
                f"node {row} has in-degree {self.max_degree}, but int32 sums of codes up to "
                f"{max_code} "
                f"times edge codes up to {max_weight} are exact only to in-degree {bound}: use "
                "fewer "
                "message or attention bits, or split the node"
            )

    def with_self_loops(self, num_nodes: int | None = None, fill: float = 1.0) -> Graph:
        """The graph with exactly one self loop on every node that is both source and target.

        Edges keep their order and a row's loop comes last. Existing loops are removed first; the
        new loop
        keeps the weight of the last one removed, as PyG's ``add_remaining_self_loops`` does.
        Without edge
        weights (and ``fill == 1``) this is also ``remove_self_loops`` + ``add_self_loops``.

        Args:
            num_nodes: Nodes to give a loop; default the smaller of sources and targets.
            fill: Weight of new loops.
        """
        count = min(self.num_src, self.num_dst) if num_nodes is None else num_nodes

        def make() -> Graph:
            rows, cols, weight = self.rows, self.indices.long(), self.edge_weight
            loops = rows == cols
            nodes = torch.arange(count, device=self.device)
            keep = ~loops
            new_rows = torch.cat([rows[keep], nodes])
            new_cols = torch.cat([cols[keep], nodes])
            new_weight = None
            if weight is not None or fill != 1.0:
                old = torch.ones(rows.numel(), device=self.device) if weight is None else weight
                loop_weight = torch.full((count,), fill, device=self.device, dtype=old.dtype)
                at = rows[loops]
                inside = at < count
                loop_weight = loop_weight.index_put((at[inside],), old[loops][inside])
                new_weight = torch.cat([old[keep], loop_weight])
            indptr, indices, perm = coo_to_csr(new_rows, new_cols, self.num_dst)
            if new_weight is not None:
                new_weight = new_weight[perm]
            return Graph(indptr, indices, self.num_src, None, new_weight)

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Graph = self.cached(("self_loops", count, fill), make)
        return value

    def repeated(self, count: int) -> Graph:
        """``count`` copies side by side as one graph: the graph of as many feature matrices.

        Args:
            count: At least 0.

        Raises:
            GraphError: If the copies have more sources than int32 can number.
        """
        if self.num_src * count > INT32_MAX:
            raise GraphError(
                f"{count} feature matrices of {self.num_src} nodes have more rows than int32 can "
                "number: pass fewer at a time"
            )

        def make() -> Graph:
            part = torch.arange(count, device=self.device).view(-1, 1)
            ends = (self.indptr[1:] + part * self.num_edges).view(-1)
            indices = (self.indices.long() + part * self.num_src).view(-1).int()
            weight = None if self.edge_weight is None else self.edge_weight.repeat(count)
            indptr = torch.cat([self.indptr[:1], ends])
            return Graph(indptr, indices, self.num_src * count, None, weight, self.valued)

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Graph = self.cached(("repeated", count), make)
        return value

    @property
    def deg_inv_sqrt(self) -> Tensor:
        """GCN's factors ``d^-1/2``, 0 where d is 0, float32 ``[num_dst]``; d is weighted.

        Raises:
            GraphError: If the graph is bipartite; GCN's normalisation needs square adjacencies.
        """
        if self.num_src != self.num_dst:
            raise GraphError(
                f"GCN normalisation needs as many sources as targets, got {self.num_src} and "
                f"{self.num_dst}"
            )

        def make() -> Tensor:
            if self.edge_weight is None:
                degree = self.degree
            else:
                degree = torch.zeros(self.num_dst, device=self.device).index_add(
                    0, self.rows, self.edge_weight
                )
            value = degree.pow(-0.5)
            return value.masked_fill(value == float("inf"), 0.0)

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Tensor = self.cached("deg_inv_sqrt", make)
        return value

    @property
    def nbytes(self) -> int:
        """Bytes of indptr, indices and weights."""
        weights = 0 if self.edge_weight is None else 4 * self.num_edges
        return 8 * self.indptr.numel() + 4 * self.num_edges + weights


def check_index(edge_index: Tensor, num_src: int, num_dst: int) -> None:
    """Refuses node indices outside the graph.

    Args:
        edge_index: int ``[2, E]``, sources then targets.
        num_src: Number of sources.
        num_dst: Number of targets.

    Raises:
        NodeIndexError: Names the position, the value and the bound.
    """
    if edge_index.numel() == 0:
        return
    for row, bound, what in ((0, num_src, "source"), (1, num_dst, "target")):
        low, high = (int(v) for v in torch.aminmax(edge_index[row]))
        if low < 0 or high >= bound:
            bad = (edge_index[row] < 0) | (edge_index[row] >= bound)
            at = int(bad.nonzero()[0])
            raise NodeIndexError(
                f"edge_index[{row}, {at}] is {int(edge_index[row, at])}: {what} indices must be in "
                f"[0, {bound - 1}] for {bound} nodes"
            )
