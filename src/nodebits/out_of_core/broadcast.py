"""Sums in order of sources: each row is read once, and added where its edges lead to.

The sources are cut into blocks of rows that fit the memory. Of every block the edges are kept, in
order of targets; its part of all sums is added to int32 sums in a file, from front to back. Parts
of integer sums may be added in any order, so no bit depends on the blocks.
"""

from __future__ import annotations

from pathlib import Path

import torch

from nodebits.ops import spmm
from nodebits.ops.records import Edges
from nodebits.out_of_core.edges import EdgeFiles, pieces
from nodebits.out_of_core.files import RowFile
from nodebits.plan.by_row import RowPlan

# Bytes of an edge, and of where its target begins, while it is put into its block, or summed.
_EDGE, _ROW = 48, 64
# Rows of sums that exist at once: read, made, and added.
_COPIES = 3


class SourceBlocks:
    """The edges of a graph, a block of sources at a time.

    Args:
        folder: Where files are.
        edges: All of them, in order of targets.
        block: Sources in a block.
        memory: Bytes.
    """

    def __init__(self, folder: Path, edges: EdgeFiles, block: int, memory: int) -> None:
        count = edges.num_nodes
        self._block, self._memory = max(block, 1), memory
        self.bounds = [
            (at, min(at + self._block, count)) for at in range(0, max(count, 1), self._block)
        ]
        self._edges = [edges]
        if len(self.bounds) > 1:
            names = [f"sources-{number}" for number in range(len(self.bounds))]
            self._edges = [EdgeFiles(folder, count, name=name) for name in names]
            self._divide(edges)

    def _divide(self, edges: EdgeFiles) -> None:
        count = edges.num_nodes
        written = [0] * len(self.bounds)
        for file in self._edges:
            file.indices.path.write_bytes(b"")
            file.indptr.write(0, torch.zeros(1, dtype=torch.int64, device="cpu"))
        for first, last in pieces(edges.ends(0, count), _EDGE, _ROW, self._memory):
            indptr, indices, _ = edges.rows(first, last, False)
            of = torch.div(indices, self._block, rounding_mode="floor")
            for number, file in enumerate(self._edges):
                mine = of == number
                before = torch.cat([indptr.new_zeros(1), mine.cumsum(0)])[indptr]
                file.indptr.write(first + 1, before[1:] + written[number])
                file.indices.write(written[number], indices[mine])
                written[number] += int(before[-1])

    def add_up(self, plan: RowPlan, number: int, table: RowFile, into: RowFile) -> None:
        """Writes the integers of a step that :meth:`RowPlan.adds_up`, for all nodes.

        Args:
            plan: The plan.
            number: Of the step.
            table: The packed rows that it reads.
            into: int32 ``[N, C]``.
        """
        loops = plan.topology(number).loops
        of_row = _ROW + _COPIES * into.row_bytes
        into.path.write_bytes(b"")
        for block, ((begin, end), edges) in enumerate(zip(self.bounds, self._edges, strict=True)):
            source = plan.packed_source(number, table.read(begin, end))
            ends = edges.ends(0, edges.num_nodes)
            for first, last in pieces(ends, _EDGE, of_row, self._memory):
                indptr, indices, _ = edges.rows(first, last, loops, (begin, end))
                part = spmm(Edges(indptr, indices - begin), source)
                if block:
                    part += into.read(first, last)
                into.write(first, part)

    def remove(self) -> None:
        """Removes what was made of the edges of all."""
        if len(self.bounds) > 1:
            for file in self._edges:
                file.indptr.path.unlink(missing_ok=True)
                file.indices.path.unlink(missing_ok=True)
