"""A graph of a recorded forward: what is asked of it becomes a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from nodebits.graph import Graph, Part, joined_graph
from nodebits.graph.csr import INT32_MAX
from nodebits.graph.edge_table import EdgeTable, distinct_rows
from nodebits.graph.loops import EDGE_INDEX
from nodebits.plan.trace import Sized, sum_of


class Notes(Protocol):
    """What of a recorder a graph needs."""

    @property
    def hidden(self) -> bool:
        """Whether what happens now is part of a step."""

    def composite(self, op: str, run: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        """Notes a function as one step."""

    def refuse(self, reason: str) -> None:
        """Gives up taking the innermost module apart."""

    def hide(self) -> AbstractContextManager[None]:
        """What happens inside is no step of its own."""

    def knows(self, value: Any) -> bool:
        """Whether a tensor follows from the arguments."""

    def unseen_size(self, least: int) -> int:
        """The first number from ``least`` up that no value so far has as a size."""


class RecordedGraph(Graph):
    """A graph whose arrays are values of a trace.

    Args:
        notes: The recorder.
        real: The graph itself.
        indptr: Its pointers, as a value.
        indices: Likewise.
        perm: Likewise.
        weight: Likewise, or None.
        sources: Number of sources, where that is computed from sizes.
    """

    def __init__(
        self,
        notes: Notes,
        real: Graph,
        indptr: Tensor,
        indices: Tensor,
        perm: Tensor | None,
        weight: Tensor | None = None,
        sources: Sized | None = None,
    ) -> None:
        super().__init__(indptr, indices, real.num_src, perm, weight, real.form)
        self.real, self._notes, self.checked = real, notes, True
        self._sources = self.num_src if sources is None else sources

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        # What a step computes inside is no value, and must not be found as one later.
        return self.real.cached(key, make) if self._notes.hidden else super().cached(key, make)

    def _fact(self, name: str, real: Callable[[], Tensor], *args: Any) -> Tensor:
        def make() -> Tensor:
            found: Tensor = self._notes.composite(
                name, lambda: real().clone(), (self.indptr, *args)
            )
            return found

        if self._notes.hidden:
            return real()
        value: Tensor = super().cached(name, make)
        return value

    @property
    def degree(self) -> Tensor:
        return self._fact("degree", lambda: self.real.degree)

    @property
    def source_degree(self) -> Tensor:
        if self.signed and not self._notes.hidden:
            self._notes.refuse("it adds up weights by source, and some are below zero")
        weight = () if self.edge_weight is None else (self.edge_weight,)

        def make() -> Tensor:
            found: Tensor = self._notes.composite(
                "source_degree",
                self.real.source_degree.clone,
                (self.indices, self.num_src, *weight),
            )
            return found

        if self._notes.hidden:
            return self.real.source_degree
        value: Tensor = super().cached("source_degree", make)
        return value

    @property
    def signed(self) -> bool:
        return self.real.signed

    @property
    def inverse_degree(self) -> Tensor:
        return self._fact("inverse_degree", lambda: self.real.inverse_degree)

    @property
    def deg_inv_sqrt(self) -> Tensor:
        return self._fact("deg_inv_sqrt", lambda: self.real.deg_inv_sqrt, self.edge_weight)

    @property
    def rows(self) -> Tensor:
        return self._fact("targets", lambda: self.real.rows)

    @property
    def max_degree(self) -> int:
        self._notes.refuse("it asks for the largest degree")
        return self.real.max_degree

    @property
    def fingerprint(self) -> int:
        self._notes.refuse("it keeps what it made for one graph")
        return self.real.fingerprint

    @property
    def fingerprint_value(self) -> Tensor:
        real = lambda: torch.tensor([self.real.fingerprint], device="cpu")  # noqa: E731
        return self._fact("fingerprint", real, self.indices, self._sources)

    @property
    def identity(self) -> tuple[int, int]:
        self._notes.refuse("it keeps what it made for one graph")
        return self.real.identity

    def blocks(self, row_bytes: int) -> Tensor | None:
        return self.real.blocks(row_bytes) if self._notes.hidden else None

    def check_accumulator(self, max_code: int, max_weight: int = 1) -> None:
        if self._notes.hidden:
            return self.real.check_accumulator(max_code, max_weight)
        bound = INT32_MAX // (max_code * max_weight)
        run = lambda: self.real.check_accumulator(max_code, max_weight)  # noqa: E731
        self._notes.composite("check_degree", run, (self.indptr, bound))
        return None

    def edge_index(self) -> Tensor:
        made: Tensor = self._notes.composite(
            "edge_index", self.real.edge_index, (self.indptr, self.indices, self.perm)
        )
        return made

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        self._notes.refuse("it asks for the reversed edges")
        return self.real.transposed()

    def repeated(self, count: int) -> Graph:
        self._notes.refuse("it works on several feature matrices at once")
        return self.real.repeated(count)

    def by_edge(self) -> Graph:
        if self._notes.hidden:
            return self.real.by_edge()

        def make() -> Graph:
            with self._notes.hide():
                real = self.real.by_edge()
            numbers = torch.arange(self.num_edges, dtype=torch.int32, device=self.device)
            return RecordedGraph(self._notes, real, self.indptr, numbers, None)

        value: Graph = super().cached("by edge", make)
        return value

    def edge_table(self, features: Tensor, ordered: bool = False) -> EdgeTable:
        if self._notes.hidden:
            return self.real.edge_table(features, ordered)
        return self._table(self.real.perm, (features, self.perm, ordered))

    def loop_table(self, features: Tensor, loops: Tensor, places: Tensor) -> EdgeTable:
        if self._notes.hidden:
            return self.real.loop_table(features, loops, places)
        return self._table(places, (features, places, False, loops))

    def _table(self, perm: Tensor | None, args: tuple[Any, ...]) -> EdgeTable:
        def run() -> tuple[Tensor, ...]:
            # How many rows there are follows from values: no size of an example may look like it.
            rows, *places = distinct_rows(args[0], perm, *args[2:])
            more = self._notes.unseen_size(places[0].numel() + rows.size(0)) - rows.size(0)
            return torch.cat([rows, rows.new_zeros(more, rows.size(1))]), *places

        rows, places, numbers = self._notes.composite("distinct_rows", run, args)

        def sources() -> Graph:
            with self._notes.hide():
                real = self.real.over_rows(numbers, rows.size(0))
            return RecordedGraph(self._notes, real, self.indptr, numbers, None)

        return EdgeTable(rows, places, sources)

    def by_relation(self, kinds: Tensor, count: int) -> list[Graph]:
        if self._notes.hidden:
            return self.real.by_relation(kinds, count)

        def make() -> list[Graph]:
            with self._notes.hide():
                real = self.real.by_relation(kinds, count)
            flat = [part for graph in real for part in (graph.indptr, graph.indices)]
            parts = self._notes.composite(
                "by_relation",
                lambda: tuple(part.clone() for part in flat),
                (self.indptr, self.indices, self.perm, kinds, count),
            )
            found = zip(real, parts[::2], parts[1::2], strict=True)
            return [RecordedGraph(self._notes, own, ptr, idx, None) for own, ptr, idx in found]

        value: list[Graph] = super().cached(("by relation", id(kinds), count), make)
        return value

    def topology(self, distinct: bool = False) -> Graph:
        if self._notes.hidden:
            return self.real.topology(distinct)
        if self.edge_weight is None and self.form == EDGE_INDEX:
            return self

        def make() -> Graph:
            with self._notes.hide():
                plain = self.real.topology(distinct)
            if plain.num_edges != self.num_edges:
                self._notes.refuse("its matrix has an entry twice")
            return RecordedGraph(self._notes, plain, self.indptr, self.indices, self.perm)

        value: Graph = super().cached(("topology", distinct), make)
        return value

    def with_form(self, form: str) -> RecordedGraph:
        """The same edges, given as a matrix or in any other form."""
        real = Graph(self.real.indptr, self.real.indices, self.num_src, self.real.perm, None, form)
        real.checked = True
        return RecordedGraph(self._notes, real, self.indptr, self.indices, self.perm)

    def with_self_loops(self, num_nodes: int | None = None, fill: float = 1.0) -> Graph:
        if self._notes.hidden:
            return self.real.with_self_loops(num_nodes, fill)
        count = min(self.num_src, self.num_dst) if num_nodes is None else num_nodes
        with self._notes.hide():
            real = self.real.with_self_loops(num_nodes, fill)

        # Loops that are there are treated by the form; that of most graphs is not written.
        form = () if self.form == EDGE_INDEX else (self.form,)

        def make() -> Graph:
            if real.edge_weight is None:
                parts = self._notes.composite(
                    "self_loops",
                    lambda: (real.indptr.clone(), real.indices.clone()),
                    (self.indptr, self.indices, self.perm, count, *form),
                )
                return RecordedGraph(self._notes, real, parts[0], parts[1], None)
            weight = real.edge_weight
            indptr, indices, weight = self._notes.composite(
                "self_loops_weighted",
                lambda: (real.indptr.clone(), real.indices.clone(), weight.clone()),
                (self.indptr, self.indices, self.edge_weight, count, float(fill), *form),
            )
            return RecordedGraph(self._notes, real, indptr, indices, None, weight)

        value: Graph = super().cached(("self_loops", count, fill), make)
        return value

    def with_placed_loops(self) -> tuple[Graph, Tensor]:
        if self._notes.hidden:
            return self.real.with_placed_loops()
        count = min(self.num_src, self.num_dst)

        def make() -> tuple[Graph, Tensor]:
            with self._notes.hide():
                real, places = self.real.with_placed_loops()
            indptr, indices, order = self._notes.composite(
                "self_loops_placed",
                lambda: (real.indptr.clone(), real.indices.clone(), places.clone()),
                (self.indptr, self.indices, self.perm, count),
            )
            return RecordedGraph(self._notes, real, indptr, indices, None), order

        value: tuple[Graph, Tensor] = super().cached("placed loops", make)
        return value

    def weighted(self, weight: Tensor) -> Graph:
        """With weights of the edges in the order they were given in.

        Args:
            weight: float32 ``[E]``.
        """
        if weight.dim() != 1 or weight.dtype != torch.float32 or not self._notes.knows(weight):
            self._notes.refuse("its edge weights are no vector of float32 among the arguments")
        assert self.perm is not None

        def make() -> Graph:
            perm = self.real.perm
            with self._notes.hide():
                ordered = weight.clone() if perm is None else weight[perm]
            rows = self.real.indptr, self.real.indices
            real = Graph(*rows, self.num_src, perm, ordered, self.form)
            real.checked = True
            value = self._notes.composite("in_order", ordered.clone, (weight, self.perm))
            return RecordedGraph(self._notes, real, self.indptr, self.indices, self.perm, value)

        value: Graph = super().cached(("weighted", id(weight)), make)
        return value


def record_joined(notes: Notes, parts: Sequence[Part], counts: Sequence[int]) -> Graph:
    """:func:`nodebits.graph.joined_graph`, as a step."""
    with notes.hide():
        real = joined_graph([Part(plain_graph(one.graph), one.target) for one in parts], counts)
    graphs = [part.graph for part in parts]
    indptr, indices = notes.composite(
        "joined_rows",
        lambda: (real.indptr.clone(), real.indices.clone()),
        (
            [graph.indptr for graph in graphs],
            [graph.indices for graph in graphs],
            [graph.num_src for graph in graphs],
            [part.target for part in parts],
            list(counts),
        ),
    )
    sources = Sized(real.num_src, sum_of([(graph.num_src,) for graph in graphs]))
    return RecordedGraph(notes, real, indptr, indices, None, None, sources)


def plain_graph(value: Any) -> Any:
    """The graph itself of one that is recorded; anything else as it is."""
    return value.real if isinstance(value, RecordedGraph) else value
