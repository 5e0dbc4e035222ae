"""A plan's values, kept for all nodes, of which a change computes those rows that it reaches.

A row that comes out as it was goes no further. So what an update costs follows from the rows that
change, which on few bits are less than those within reach.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.ops.definitions.fused import complete
from nodebits.ops.operator import OPERATORS
from nodebits.ops.records import Edges, Source
from nodebits.plan.by_row import CHECKS, EdgeRows, Part, RowPlan
from nodebits.plan.kinds import SOURCES, values_of
from nodebits.session.graph import ChangingGraph
from nodebits.session.values import GrowingRows, differing

# Sums whose integers are kept, and changed by what came and went.
_KEPT_SUMS = ("fused_spmm", "spmm")
# Where one of so many rows changed, sums are made anew.
_MANY = 4
_NONE = torch.empty(0, dtype=torch.int64, device="cpu")


class Structure(NamedTuple):
    """What changed in the graph.

    Attributes:
        added: int64 ``[2, a]``, edges that came.
        removed: int64 ``[2, r]``, edges that went, also such as came meanwhile.
    """

    added: Tensor
    removed: Tensor

    def edges(self, loops: bool, new: Tensor) -> Structure:
        """The same of a graph in which loops stand in place of others.

        Args:
            loops: Whether that is so.
            new: Nodes that came, whose loops are new.
        """
        if not loops:
            return self
        added, removed = (one[:, one[0] != one[1]] for one in self)
        return Structure(torch.cat([added, torch.stack([new, new])], 1), removed)


class _Changed(NamedTuple):
    """Rows of a value that are others now, and as they were where somebody asks for that."""

    index: Tensor
    old: Tensor | None


class Incremental:
    """All values of a plan for the nodes of a graph.

    Args:
        plan: The plan.
        graph: Changed by others before :meth:`update`.
    """

    def __init__(self, plan: RowPlan, graph: ChangingGraph) -> None:
        self._plan, self._graph = plan, graph
        self._values: dict[int, GrowingRows] = {}
        self._sums: dict[int, GrowingRows] = {}
        self._nodes = 0
        steps = enumerate(plan.steps)
        self._kept = {
            n for n, step in steps if step["op"] in _KEPT_SUMS and step["args"][2] is None
        }
        self._tables = {(plan.source(n), plan.topology(n).loops) for n in self._kept}
        self._old = {value for value, _ in self._tables}

    # --- where steps find rows ---

    def rows(self, value: int, index: Tensor) -> Tensor:
        """See :class:`nodebits.plan.by_row.RowSource`."""
        return self._values[value].take(index)

    def edges(self, index: Tensor, loops: bool) -> EdgeRows:
        """Likewise."""
        return self._graph.rows(index, loops)

    def degrees(self, index: Tensor, loops: bool) -> Tensor:
        """Likewise."""
        return self._graph.in_degree(index, loops)

    def table(self, value: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Likewise."""
        return self._values[value].tensor, indices

    @property
    def output(self) -> GrowingRows:
        """What the model returns for every node."""
        return self._values[self._plan.output]

    def memory(self) -> int:
        """Bytes of all values that are kept."""
        kept = (*self._values.values(), *self._sums.values())
        return sum(one.tensor.numel() * one.tensor.element_size() for one in kept)

    # --- changes ---

    def put_input(self, value: int, index: Tensor, rows: Tensor) -> None:
        """Writes rows of an input; :meth:`update` is told of them."""
        if value not in self._values:
            self._values[value] = GrowingRows(self._graph.num_nodes, rows)
        self._values[value].resize(self._graph.num_nodes)
        self._values[value].put(index, rows)

    def forget(self) -> None:
        """Forgets what was computed: the next update computes all of it."""
        given = {self._plan.kinds.first}
        self._values = {value: rows for value, rows in self._values.items() if value in given}
        self._sums = {}
        self._nodes = 0

    def update(self, written: Tensor, structure: Structure) -> None:
        """Computes all rows that a change reaches.

        Args:
            written: int64, rows of the input that were written.
            structure: What changed in the graph.
        """
        count = self._graph.num_nodes
        new = torch.arange(self._nodes, count, device="cpu")
        for one in (*self._values.values(), *self._sums.values()):
            one.resize(count)
        reach = _Reach(self, structure, new)
        first = self._graph.distinct(written, new)
        reach.changed[self._plan.kinds.first] = _Changed(first, None)
        for number, step in enumerate(self._plan.steps):
            if step["op"] not in CHECKS and step["op"] != "csr":
                reach.run(number, step)
        self._nodes = count


class _Reach:
    """One change on its way through the steps."""

    def __init__(self, kept: Incremental, structure: Structure, new: Tensor) -> None:
        self._kept, self._plan, self._graph = kept, kept._plan, kept._graph
        self._structure, self._new = structure, new
        self._touched = self._graph.distinct(structure.added[1], structure.removed[1], new)
        self.changed: dict[int, _Changed] = {}
        self._of_edges: dict[int, Tensor] = {}
        self._before = {pair: self._ends(*pair) for pair in kept._tables}

    def _ends(self, value: int, loops: bool) -> Tensor | None:
        """Rows of the sources of edges that came and went, before anything is computed."""
        rows = self._kept._values.get(value)
        changes = self._structure.edges(loops, self._new)
        return None if rows is None else rows.take(torch.cat([one[0] for one in changes]))

    def run(self, number: int, step: dict[str, Any]) -> None:
        if number in self._kept._kept:
            index = self._sum(number, step)
            made = self._completed(number, step, index) if index.numel() else []
        else:
            index = self._index(number)
            rows_of_nodes = any(self._plan.axis(out) == "node" for out in step["outs"])
            run = bool(index.numel()) and rows_of_nodes
            made = Part(self._plan, self._kept, index).run(number) if run else []
        for value, rows in zip(step["outs"], made, strict=bool(made)):
            if self._plan.axis(value) == "node":
                self.changed[value] = self._put(value, index, rows)
        # What belongs to edges is not kept: who reads it makes it of the rows that they are in.
        edges = (value for value in step["outs"] if self._plan.axis(value) == "edge")
        self._of_edges.update(dict.fromkeys(edges, index))

    def _changed_of(self, values: list[int]) -> list[Tensor]:
        rows = [self.changed[v].index for v in values if v in self.changed]
        return rows + [self._of_edges[v] for v in values if v in self._of_edges]

    def _index(self, number: int) -> Tensor:
        """Rows of a step's results that may be others."""
        plan = self._plan
        step = plan.steps[number]
        read = self._changed_of(values_of(step["args"]))
        of_graph = any(plan.inputs(number, axis) for axis in ("pointer", "edge"))
        if plan.is_whole(number):
            some = self._new.numel() or any(one.numel() for one in read)
            return torch.arange(self._graph.num_nodes, device="cpu") if some else _NONE
        if plan.is_sum(number):
            source, loops = plan.source(number), plan.topology(number).loops
            others = values_of(
                [a for i, a in enumerate(step["args"]) if i not in SOURCES[step["op"]]]
            )
            read = self._changed_of(others)
            if source in self.changed:
                read.append(self._graph.targets(self.changed[source].index, loops))
        return self._graph.distinct(*read, *([self._touched] if of_graph else []))

    def _put(self, value: int, index: Tensor, rows: Tensor) -> _Changed:
        """Keeps rows; returns those that are others than before."""
        values = self._kept._values
        if value not in values:
            values[value] = GrowingRows(self._graph.num_nodes, rows)
        old = values[value].take(index)
        differs = differing(rows, old)
        if self._new.numel():
            differs |= index >= self._new[0]
        place = differs.nonzero().view(-1)
        if place.numel() < index.numel():
            index, rows, old = index[place], rows[place], old[place]
        values[value].put(index, rows)
        return _Changed(index, old if value in self._kept._old else None)

    # --- sums that are kept ---

    def _sum(self, number: int, step: dict[str, Any]) -> Tensor:
        """Brings the kept integers of a sum up to date; returns rows that have to be finished."""
        source, loops = self._plan.source(number), self._plan.topology(number).loops
        others = [a for i, a in enumerate(step["args"]) if i not in SOURCES[step["op"]]]
        changed = self.changed.get(source, _Changed(_NONE, None))
        targets = self._changed_sums(number, source, loops, changed)
        return self._graph.distinct(targets, *self._changed_of(values_of(others)))

    def _changed_sums(self, number: int, source: int, loops: bool, changed: _Changed) -> Tensor:
        structure = self._structure.edges(loops, self._new)
        before, sums = self._before[source, loops], self._kept._sums.get(number)
        many = changed.index.numel() * _MANY > self._graph.num_nodes
        if sums is None or before is None or many:
            reached = self._graph.targets(changed.index, loops)
            targets = self._graph.distinct(self._touched, reached)
            return self._sum_anew(number, targets)
        change = self._graph.change(changed.index, loops, *structure)
        edges = change.plus.numel() + change.minus.numel()
        if not edges:
            return change.targets
        if edges > int(self._graph.in_degree(change.targets).sum()):
            return self._sum_anew(number, change.targets)
        old = before[:0] if changed.old is None else changed.old
        now = self._kept.rows(source, changed.index)
        table = self._source(number, torch.cat([now, old, before]))
        spmm = OPERATORS["spmm"]
        plus = spmm(Edges(change.plus_indptr, change.plus), table)
        minus = spmm(Edges(change.minus_indptr, change.minus), table)
        sums.put(change.targets, sums.take(change.targets) + plus - minus)
        return change.targets

    def _sum_anew(self, number: int, targets: Tensor) -> Tensor:
        edges = self._graph.rows(targets, self._plan.topology(number).loops)
        table = self._source(number, self._kept._values[self._plan.source(number)].tensor)
        made = OPERATORS["spmm"](Edges(edges.indptr, edges.indices), table)
        if number not in self._kept._sums:
            self._kept._sums[number] = GrowingRows(self._graph.num_nodes, made)
        self._kept._sums[number].put(targets, made)
        return targets

    def _source(self, number: int, packed: Tensor) -> Source:
        return Source(packed, *self._plan.steps[number]["args"][5:8])

    def _completed(self, number: int, step: dict[str, Any], index: Tensor) -> list[Tensor]:
        acc = self._kept._sums[number].take(index)
        if step["op"] == "spmm":
            return [acc]
        args = Part(self._plan, self._kept, index).arguments(number, with_edges=False)
        record: Any = OPERATORS["fused_spmm"].record(*args)
        _, source, own, epilogue, sink = record
        made = OPERATORS["rescale"], OPERATORS["quantize_pack"]
        return complete(acc, source, own, epilogue, sink, *made)
