"""The steps of a stage for the rows of one block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nodebits.core.errors import NonFiniteError
from nodebits.core.observer import check_finite
from nodebits.out_of_core.edges import EdgeFiles
from nodebits.out_of_core.files import RowFile
from nodebits.out_of_core.stages import Stage
from nodebits.plan.by_row import EdgeRows, Part, RowPlan


class Block:
    """Rows ``first`` to before ``last``, as a source of rows for steps.

    Args:
        plan: The plan.
        files: Values that are on the disk.
        edges: Likewise.
        first: The first node.
        last: The node behind the last.
        sums: Integers of sums by step, where they are on the disk.
        tables: All rows of values that sums read, as far as they fit the memory.
    """

    def __init__(
        self,
        plan: RowPlan,
        files: dict[int, RowFile],
        edges: EdgeFiles,
        first: int,
        last: int,
        sums: Mapping[int, RowFile] | None = None,
        tables: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._plan, self._files, self._edges = plan, files, edges
        self._sums = {} if sums is None else sums
        self._whole = {} if tables is None else tables
        self.first, self.last = first, last
        self.made: dict[int, Tensor] = {}
        self._rows: dict[bool, EdgeRows] = {}
        self._places: tuple[Tensor, Tensor, Tensor] | None = None
        self._tables: dict[int, Tensor] = {}

    def run(self, stage: Stage) -> dict[int, Tensor]:
        """Rows of the values that a stage writes."""
        part = Part(self._plan, self, torch.arange(self.first, self.last, device="cpu"))
        for number in stage.steps:
            step = self._plan.steps[number]
            if step["op"] == "check_finite":
                self._check_finite(int(step["args"][0][1:]))
                continue
            nodes = [self._plan.axis(value) == "node" for value in step["outs"]]
            if nodes and not any(nodes):
                continue  # what belongs to edges is made by who reads it
            if number in self._sums:
                rows = part.finish(number, self._sums[number].read(self.first, self.last))
            else:
                rows = part.run(number)
            made = zip(step["outs"], rows, nodes, strict=True)
            self.made.update({value: rows for value, rows, of_nodes in made if of_nodes})
        return {value: self.made[value] for value in stage.writes}

    def _check_finite(self, value: int) -> None:
        try:
            check_finite(self._own(value), "the feature matrix")
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} (rows are counted from node {self.first} on)") from error

    def _own(self, value: int) -> Tensor:
        if value not in self.made:
            self.made[value] = self._files[value].read(self.first, self.last)
        return self.made[value]

    # --- where steps find rows ---

    def rows(self, value: int, index: Tensor) -> Tensor:
        """The block's own rows, whatever is asked for: see ``nodebits.plan.by_row.RowSource``."""
        return self._own(value)

    def edges(self, index: Tensor, loops: bool) -> EdgeRows:
        """The edges into the block's rows, read at the first question."""
        if loops not in self._rows:
            self._rows[loops] = self._edges.rows(self.first, self.last, loops)
        return self._rows[loops]

    def degrees(self, index: Tensor, loops: bool) -> Tensor:
        """How many edges lead into each row."""
        if not loops:
            return self._edges.ends(self.first, self.last).diff()
        return self.edges(index, loops).indptr.diff()

    def table(self, value: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The sources of these edges alone, in order of their numbers; or all that there are."""
        if value in self._whole:
            return self._whole[value], indices
        if self._places is None or self._places[0] is not indices:
            sources, places = indices.unique(return_inverse=True)
            self._places, self._tables = (indices, sources.long(), places.int()), {}
        if value not in self._tables:
            self._tables[value] = self._files[value].take(self._places[1])
        return self._tables[value], self._places[2]
