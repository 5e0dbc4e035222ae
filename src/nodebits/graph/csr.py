"""Compressed rows of a graph, with everything a layer needs about its topology, computed once.

Rows are targets: row i lists the sources whose messages node i sums, in the order PyG gives the
edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import AccumulatorOverflowError, GraphError
from nodebits.core.observer import check_finite
from nodebits.graph.degree import check_degree, weight_sums
from nodebits.graph.edge_table import EdgeTable
from nodebits.graph.index_range import check_range
from nodebits.graph.loops import EDGE_INDEX, MATRIX, looped, placed
from nodebits.graph.memo import Memo
from nodebits.ops import coo_to_csr, edge_block_sizes, edge_blocks, validate_csr

INT32_MAX = 2**31 - 1
# Values of constant tensors that a graph keeps, a few for every site of a deep model.
_MADE_FROM = 256
# Divisions into relations that a graph keeps.
_RELATIONS = 4


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
        form: What it was made from: ``"edge_index"``, ``"torch.sparse"`` or ``"SparseTensor"``.

    The arrays are checked at the first use and must not be written to after that.
    """

    def __init__(
        self,
        indptr: Tensor,
        indices: Tensor,
        num_src: int,
        perm: Tensor | None = None,
        edge_weight: Tensor | None = None,
        form: str = EDGE_INDEX,
    ) -> None:
        self.form = form
        self.checked = False
        # Fingerprint in the user's numbers, where these are others.
        self.origin: int | None = None
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
        return {**self.__dict__, "_cache": {}, "checked": False}

    def validate(self) -> Graph:
        """Checks, once, all that the kernels trust; returns the graph.

        Raises:
            GraphError: If ``indptr`` does not describe rows of the edges, or an array has another
                dtype, device or length.
            NodeIndexError: If an index is outside the sources.
            NonFiniteError: If an edge weight is NaN or infinite.
        """
        if self.checked:
            return self
        for name, array, dtype in (
            ("indptr", self.indptr, torch.int64),
            ("indices", self.indices, torch.int32),
            ("perm", self.perm, torch.int64),
            ("edge_weight", self.edge_weight, torch.float32),
        ):
            if array is None:
                continue
            if array.dtype != dtype or array.dim() != 1 or array.device != self.device:
                raise GraphError(
                    f"{name} of a graph is {array.dtype} {list(array.shape)} on {array.device}: "
                    f"expected {dtype} with one dimension on {self.device}"
                )
            if name in ("perm", "edge_weight") and array.numel() != self.num_edges:
                raise GraphError(
                    f"{name} of a graph has {array.numel()} values for {self.num_edges} edges"
                )
        validate_csr(self.indptr, self.indices, self.num_src)
        if self.perm is not None:
            check_range(self.perm, self.num_edges, "perm")
        if self.edge_weight is not None:
            check_finite(self.edge_weight.detach(), "edge_weight")
        self.checked = True
        return self

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns the value made for ``key`` at the first call."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def cached_for(
        self, source: Tensor, key: Any, make: Callable[[], Tensor], owned: bool = False
    ) -> Tensor:
        """Like :meth:`cached`, for a value of ``source``: made again when that tensor changes.

        Only for constants: where ``source`` carries a gradient the value is made every time. It is
        forgotten with ``source``.

        Args:
            source: What the value is made from.
            key: Which value.
            make: Makes it.
            owned: Whether only the library writes to ``source``, see :class:`Memo`.
        """
        if source.requires_grad or source.is_inference():
            return make()
        memo = self.cached("made from", lambda: Memo(_MADE_FROM))
        known: Tensor | None = memo.get(source, key, owned)
        if known is not None:
            return known
        value = make()
        if not value.requires_grad:
            memo.put(source, key, value, owned)
        return value

    def topology(self, distinct: bool = False) -> Graph:
        """The same edges without weights; loops are then replaced, whatever the form.

        Args:
            distinct: Every edge of a ``torch.sparse`` matrix once, as PyG coalesces those that it
                gives loops; those of other forms may stay parallel.
        """
        distinct = distinct and self.form == MATRIX
        if self.form == EDGE_INDEX and self.edge_weight is None:
            return self

        def make() -> Graph:
            if not distinct:
                return Graph(self.indptr, self.indices, self.num_src, self.perm)
            key = (self.rows * self.num_src + self.indices).unique()
            row, col = key // max(self.num_src, 1), key % max(self.num_src, 1)
            indptr, indices, _ = coo_to_csr(row, col, self.num_dst)
            return Graph(indptr, indices, self.num_src)

        value: Graph = self.cached(("topology", distinct), make)
        return value

    @property
    def degree(self) -> Tensor:
        """In-degree of every target, float32 ``[num_dst]``."""
        value: Tensor = self.cached("degree", lambda: self.indptr.diff().float())
        return value

    @property
    def source_degree(self) -> Tensor:
        """Out-degree of every source, weighted where edges are, float32 ``[num_src]``."""

        def make() -> Tensor:
            weight = self.edge_weight
            if weight is None:
                return torch.bincount(self.indices, minlength=self.num_src).float()
            return weight_sums(self.indices, self.num_src, weight).float()

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Tensor = self.cached("source_degree", make)
        return value

    @property
    def signed(self) -> bool:
        """Whether an edge has a weight below zero."""
        weight = self.edge_weight
        if weight is None:
            return False

        def make() -> bool:
            return bool((weight.detach() < 0).any())

        value: bool = make() if weight.requires_grad else self.cached("signed", make)
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
    def fingerprint_value(self) -> Tensor:
        """:attr:`fingerprint` as a tensor, int64 ``[1]``."""
        value: Tensor = self.cached(
            "fingerprint value", lambda: torch.tensor([self.fingerprint], device="cpu")
        )
        return value

    @property
    def valued(self) -> bool:
        """Whether the adjacency came with values, all 1 where ``edge_weight`` is None."""
        return self.form != EDGE_INDEX or self.edge_weight is not None

    @property
    def identity(self) -> tuple[int, int]:
        """:attr:`fingerprint` in the user's numbers, and a number for the weights in any order."""

        def make() -> tuple[int, int]:
            topology = self.fingerprint if self.origin is None else self.origin
            if self.edge_weight is None:
                return topology, 0
            bits = self.edge_weight.detach().view(torch.int32).long() + 1
            mixed = bits * -7046029254386353131
            return topology, int((mixed ^ (mixed >> 29)).sum())

        value: tuple[int, int] = self.cached("identity", make)
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
        """The graph with a self loop on every node that is both source and target, as PyG adds it.

        Edges keep their order and a row's loop comes last. What happens to a loop that is there
        depends on the form, as in PyG's ``gcn_norm``:

        * ``edge_index``: it is removed, and the new one takes the weight of the last one removed.
          Without edge weights (and ``fill == 1``) this is also ``remove_self_loops`` +
          ``add_self_loops``.
        * ``torch.sparse``: the new one is added to it. Unit weights stay: it is one more edge.
        * ``SparseTensor``: it is removed, and the new one has the weight ``fill``.

        Args:
            num_nodes: Nodes to give a loop; default the smaller of sources and targets.
            fill: Weight of new loops.
        """
        count = min(self.num_src, self.num_dst) if num_nodes is None else num_nodes

        def make() -> Graph:
            edges = self.rows, self.indices.long(), self.edge_weight
            rows, cols, weight = looped(*edges, self.form, count, fill)
            indptr, indices, perm = coo_to_csr(rows, cols, self.num_dst)
            if weight is not None:
                weight = weight[perm]
            return Graph(indptr, indices, self.num_src, None, weight, self.form)

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Graph = self.cached(("self_loops", count, fill), make)
        return value

    def by_edge(self) -> Graph:
        """The same rows over sources that are the edges themselves, in the order of rows."""

        def make() -> Graph:
            numbers = torch.arange(self.num_edges, dtype=torch.int32, device=self.device)
            return self.over_rows(numbers, self.num_edges)

        value: Graph = self.cached("by edge", make)
        return value

    def over_rows(self, numbers: Tensor, num_rows: int) -> Graph:
        """The same targets over other sources.

        Args:
            numbers: int32 ``[E]``, the source of every edge.
            num_rows: How many there are.
        """
        made = Graph(self.indptr, numbers, num_rows)
        made.checked = self.checked
        return made

    def edge_rows(self, features: Tensor, ordered: bool = False) -> EdgeTable:
        """Features of edges, a row for each.

        Args:
            features: float32 ``[E, D]``, in the order in which the edges were given.
            ordered: Whether rows come in CSR order.
        """
        perm = self.perm
        if ordered:
            rows = features if perm is None else features.index_select(0, perm)
            return EdgeTable(rows, None, self.by_edge)

        def sources() -> Graph:
            return self.by_edge() if perm is None else self.over_rows(perm.int(), perm.numel())

        return EdgeTable(features, perm, sources)

    def edge_table(self, features: Tensor, ordered: bool = False) -> EdgeTable:
        """Rows that edges have, and which one each of them has.

        A plan has each row once where few differ (:func:`distinct_rows`), so that it maps, packs
        and reads those few: a row of a result depends on no other.

        Args:
            features: float32 ``[E, D]``, in the order in which the edges were given.
            ordered: Whether rows come in CSR order where there is one for every edge.
        """
        return self.edge_rows(features, ordered)

    def loop_rows(self, features: Tensor, loops: Tensor, places: Tensor) -> EdgeTable:
        """Features of the edges of a graph with loops of its own, a row for each.

        Args:
            features: float32 ``[E, D]``, in the order in which the edges were given.
            loops: float32 ``[L, D]``, which stand behind these.
            places: int64, of both, the row of every edge of this graph.
        """
        rows = torch.cat([features, loops])
        return EdgeTable(rows, places, lambda: self.over_rows(places.int(), rows.size(0)))

    def loop_table(self, features: Tensor, loops: Tensor, places: Tensor) -> EdgeTable:
        """The same as :meth:`edge_table` has them; loops have a row each."""
        return self.loop_rows(features, loops, places)

    def by_relation(self, kinds: Tensor, count: int) -> list[Graph]:
        """The edges of every relation, as graphs whose arrays are parts of the same two.

        Args:
            kinds: int64 ``[E]``, the relation of every edge in the order they were given in.
            count: Number of relations.

        Raises:
            GraphError: If ``kinds`` is no integer per edge.
            NodeIndexError: If a relation is outside ``[0, count)``.
        """
        if kinds.dtype not in (torch.int64, torch.int32) or kinds.shape != (self.num_edges,):
            raise GraphError(
                f"edge_type is {kinds.dtype} {list(kinds.shape)}: expected int64 "
                f"[{self.num_edges}], the relation of every edge"
            )

        def make() -> list[Graph]:
            check_range(kinds, count, "edge_type")
            own = kinds.long() if self.perm is None else kinds.long()[self.perm]
            rows = own * self.num_dst + self.rows
            indptr, indices, _ = coo_to_csr(rows, self.indices.long(), self.num_dst * count)
            ends = indptr[:: max(self.num_dst, 1)].tolist() if self.num_dst else [0] * (count + 1)
            parts = []
            for kind, (begin, end) in enumerate(itertools.pairwise(ends)):
                first = kind * self.num_dst
                pointers = indptr[first : first + self.num_dst + 1] - begin
                parts.append(Graph(pointers, indices[begin:end], self.num_src))
                parts[-1].checked = True
            return parts

        remembered: Memo = self.cached("by relation", lambda: Memo(_RELATIONS))
        return remembered.recall(kinds, count, make)

    def with_placed_loops(self) -> tuple[Graph, Tensor]:
        """:meth:`with_self_loops` of an ``edge_index``, and which row of features is whose.

        Returns:
            The graph; and int64 ``[E']``, the number of every edge as it was given, or ``E + i``
            for the loop of node i.
        """

        def make() -> tuple[Graph, Tensor]:
            count = min(self.num_src, self.num_dst)
            rows, cols, places = placed(self.rows, self.indices.long(), self.perm, count)
            indptr, indices, order = coo_to_csr(rows, cols, self.num_dst)
            made = Graph(indptr, indices, self.num_src, None, None, self.form)
            return made, places[order]

        value: tuple[Graph, Tensor] = self.cached("placed loops", make)
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
            return Graph(indptr, indices, self.num_src * count, None, weight, self.form)

        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return make()
        value: Graph = self.cached(("repeated", count), make)
        return value

    @property
    def deg_inv_sqrt(self) -> Tensor:
        """GCN's factors ``d^-1/2``, 0 where d is 0, float32 ``[num_dst]``; d is weighted.

        Raises:
            GraphError: If the graph is bipartite (GCN's normalisation needs square adjacencies), or
                if the weights into a node sum to less than 0.
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
                degree = weight_sums(self.rows, self.num_dst, self.edge_weight).float()
                check_degree(degree.detach())
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
