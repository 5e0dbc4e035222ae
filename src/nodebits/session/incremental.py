"""A plan's values, kept for all nodes, of which a change computes those rows that it reaches.

A row that comes out as it was goes no further. So what an update costs follows from the rows that
change, which on few bits are less than those within reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodebits.ops import spmm
from nodebits.ops.records import Edges
from nodebits.plan.by_row import CHECKS, EdgeRows, Part, RowPlan
from nodebits.session.graph import ChangingGraph
from nodebits.session.values import GrowingRows

# Where one of so many rows changed, sums are made anew.
_MANY = 4
_NONE = torch.empty(0, dtype=torch.int64, device="cpu")


@dataclass(frozen=True)
class Structure:
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
        added, removed = (one[:, one[0] != one[1]] for one in (self.added, self.removed))
        return Structure(torch.cat([added, torch.stack([new, new])], 1), removed)


@dataclass(frozen=True)
class _Changed:
    """Rows of a value that are others now, and as they were where somebody asks for that."""

    rows: Tensor
    old: Tensor | None


class Incremental:
    """All values of a plan for the nodes of a graph.

    Args:
        plan: The plan.
        graph: Changed by others before :meth:`update`.

    Attributes:
        values: Rows of all nodes by value.
        sums: Integer sums by step.
        kept: Steps whose sums are kept.
        tables: What these read of neighbours, and whether with loops.
        old: Values whose rows are asked for as they were.
    """

    def __init__(self, plan: RowPlan, graph: ChangingGraph) -> None:
        self._plan, self._graph = plan, graph
        self.values: dict[int, GrowingRows] = {}
        self.sums: dict[int, GrowingRows] = {}
        self._nodes = 0
        self.kept = {number for number in range(len(plan.steps)) if plan.adds_up(number)}
        self.tables = {(plan.sources(n)[0], plan.topology(n).loops) for n in self.kept}
        self.old = {value for value, _ in self.tables}

    # --- where steps find rows ---

    def rows(self, value: int, index: Tensor) -> Tensor:
        """Some rows of a value, as :class:`nodebits.plan.by_row.RowSource` asks for them."""
        return self.values[value].take(index)

    def edges(self, index: Tensor, loops: bool) -> EdgeRows:
        """Likewise."""
        return self._graph.rows(index, loops)

    def degrees(self, index: Tensor, loops: bool) -> Tensor:
        """Likewise."""
        return self._graph.in_degree(index, loops)

    def table(self, value: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Likewise."""
        return self.values[value].tensor, indices

    @property
    def output(self) -> GrowingRows:
        """What the model returns for every node."""
        return self.values[self._plan.output]

    def size(self, value: int, axis: int) -> int:
        """A size of a value, along any axis; see :meth:`nodebits.plan.by_row.RowPlan.fits`."""
        if axis == 0 and self._plan.axis(value) == "node":
            return self._graph.num_nodes
        if value in self.values:
            return self.values[value].tensor.size(axis)
        pointers = self._plan.kinds.edges_counted(f"d{value}.{axis}")
        if not pointers:  # where edges begin, or the two rows of the edges themselves
            return self._graph.num_nodes + 1 if self._plan.axis(value) == "pointer" else 2
        loops = self._plan.topologies[pointers.pop()].loops
        return self._graph.num_edges + loops * (self._graph.num_nodes - self._graph.num_loops)

    def memory(self) -> int:
        """Bytes of all values that are kept."""
        kept = (*self.values.values(), *self.sums.values())
        return sum(one.tensor.numel() * one.tensor.element_size() for one in kept)

    # --- changes ---

    def put_input(self, value: int, index: Tensor, rows: Tensor) -> None:
        """Writes rows of an input; :meth:`update` is told of them."""
        if value not in self.values:
            self.values[value] = GrowingRows(self._graph.num_nodes, rows)
        self.values[value].resize(self._graph.num_nodes)
        self.values[value].put(index, rows)

    def forget(self) -> None:
        """Forgets what was computed: the next update computes all of it."""
        given = {self._plan.kinds.first}
        self.values = {value: rows for value, rows in self.values.items() if value in given}
        self.sums = {}
        self._nodes = 0

    def update(self, written: Tensor, structure: Structure) -> None:
        """Computes all rows that a change reaches.

        Args:
            written: int64, rows of the input that were written.
            structure: What changed in the graph.
        """
        count = self._graph.num_nodes
        new = torch.arange(self._nodes, count, device="cpu")
        for one in (*self.values.values(), *self.sums.values()):
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
        self._new = new
        self._structures = {loops: structure.edges(loops, new) for _, loops in kept.tables}
        self._touched = self._graph.distinct(structure.added[1], structure.removed[1], new)
        self.changed: dict[int, _Changed] = {}
        self._of_edges: dict[int, Tensor] = {}
        self._before = {pair: self._ends(*pair) for pair in kept.tables}

    def _ends(self, value: int, loops: bool) -> Tensor | None:
        """Rows of the sources of edges that came and went, before anything is computed."""
        rows = self._kept.values.get(value)
        changes = self._structures[loops]
        return (
            None if rows is None else rows.take(torch.cat([changes.added[0], changes.removed[0]]))
        )

    def run(self, number: int, step: dict[str, Any]) -> None:
        if number in self._kept.kept:
            index, acc = self._sum(number)
            run = bool(index.numel()) or self._is_unknown(step)
            made = Part(self._plan, self._kept, index).finish(number, acc) if run else []
        else:
            index = self._index(number)
            rows_of_nodes = any(self._plan.axis(out) == "node" for out in step["outs"])
            run = rows_of_nodes and (bool(index.numel()) or self._is_unknown(step))
            made = Part(self._plan, self._kept, index).run(number) if run else []
        for value, rows in zip(step["outs"], made, strict=bool(made)):
            if self._plan.axis(value) == "node":
                self.changed[value] = self._put(value, index, rows)
        # What belongs to edges is not kept: who reads it makes it of the rows that they are in.
        edges = (value for value in step["outs"] if self._plan.axis(value) == "edge")
        self._of_edges.update(dict.fromkeys(edges, index))

    def _is_unknown(self, step: dict[str, Any]) -> bool:
        """Whether nothing is kept of a step's rows yet: also of no nodes they have a width."""
        rows = (out for out in step["outs"] if self._plan.axis(out) == "node")
        return any(value not in self._kept.values for value in rows)

    def _changed_of(self, values: list[int]) -> list[Tensor]:
        rows = [self.changed[v].rows for v in values if v in self.changed]
        return rows + [self._of_edges[v] for v in values if v in self._of_edges]

    def _index(self, number: int) -> Tensor:
        """Rows of a step's results that may be others."""
        plan = self._plan
        read = self._changed_of(plan.reads[number])
        of_graph = plan.reads_edges(number)
        if plan.is_whole(number):
            read += [self._new, *([self._touched] if of_graph else [])]
            some = any(one.numel() for one in read)
            return torch.arange(self._graph.num_nodes, device="cpu") if some else _NONE
        if plan.is_sum(number):
            read = self._changed_of(plan.reads_own[number])
            loops = plan.topology(number).loops
            rows = (self.changed[v].rows for v in plan.sources(number) if v in self.changed)
            read += [self._graph.targets(one, loops) for one in rows]
        return self._graph.distinct(*read, *([self._touched] if of_graph else []))

    def _put(self, value: int, index: Tensor, rows: Tensor) -> _Changed:
        """Keeps rows; returns those that are others than before."""
        values = self._kept.values
        if value not in values:
            values[value] = GrowingRows(self._graph.num_nodes, rows)
        first = int(self._new[0]) if self._new.numel() else self._graph.num_nodes
        return _Changed(*values[value].rewrite(index, rows, first, value in self._kept.old))

    # --- sums that are kept ---

    def _sum(self, number: int) -> tuple[Tensor, Tensor]:
        """Brings the kept integers of a sum up to date.

        Returns:
            Rows that have to be finished, and their integers.
        """
        targets, acc = self._changed_sums(number)
        own = self._changed_of(self._plan.reads_own[number])
        index = self._graph.distinct(targets, *own)
        if index.numel() > targets.numel():  # the targets are the first
            rest = self._kept.sums[number].take(index[targets.numel() :])
            acc = torch.cat([acc, rest])
        return index, acc

    def _changed_sums(self, number: int) -> tuple[Tensor, Tensor]:
        """Targets of a sum that changed, and their integers."""
        source, loops = self._plan.sources(number)[0], self._plan.topology(number).loops
        changed = self.changed.get(source, _Changed(_NONE, None))
        before, sums = self._before[source, loops], self._kept.sums.get(number)
        many = changed.rows.numel() * _MANY > self._graph.num_nodes
        if sums is None or before is None or many:
            reached = self._graph.targets(changed.rows, loops)
            return self._sum_anew(number, self._graph.distinct(self._touched, reached))
        structure = self._structures[loops]
        change = self._graph.change(changed.rows, loops, structure.added, structure.removed)
        edges = change.plus.numel() + change.minus.numel()
        if edges > int(self._graph.in_degree(change.targets).sum()):
            return self._sum_anew(number, change.targets)
        if not edges:
            return change.targets, sums.take(change.targets)
        old = before[:0] if changed.old is None else changed.old
        now = self._kept.rows(source, changed.rows)
        table = self._plan.packed_source(number, torch.cat([now, old, before]))
        plus = spmm(Edges(change.plus_indptr, change.plus), table)
        minus = spmm(Edges(change.minus_indptr, change.minus), table)
        return change.targets, sums.add(change.targets, plus, minus)

    def _sum_anew(self, number: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        edges = self._graph.rows(targets, self._plan.topology(number).loops)
        table = self._plan.packed_source(
            number, self._kept.values[self._plan.sources(number)[0]].tensor
        )
        made = spmm(Edges(edges.indptr, edges.indices), table)
        if number not in self._kept.sums:
            self._kept.sums[number] = GrowingRows(self._graph.num_nodes, made)
        self._kept.sums[number].put(targets, made)
        return targets, made
