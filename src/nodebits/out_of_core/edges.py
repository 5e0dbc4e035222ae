"""Edges on the disk, in order of their targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import NodeIndexError
from nodebits.graph.csr import INT32_MAX
from nodebits.ops import coo_to_csr
from nodebits.out_of_core.files import RowFile
from nodebits.plan.by_row import EdgeRows

# Edges that are looked at together.
_CHUNK = 1 << 21
# Bytes that an edge takes while its block is sorted.
_SORTED = 48


class EdgeFiles:
    """Rows of edges in two files: where they begin, and sources.

    Args:
        folder: Where they are.
        num_nodes: Number of nodes.
    """

    def __init__(self, folder: Path, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        self._indptr = RowFile(folder / "edges-indptr.bin", (), torch.int64)
        self._indices = RowFile(folder / "edges-indices.bin", (), torch.int32)

    @property
    def bytes_read(self) -> int:
        """Bytes that were read so far."""
        return self._indptr.bytes_read + self._indices.bytes_read

    def build(self, edge_index: Any, memory: int) -> None:
        """Sorts edges by target, as many targets at a time as fit; those of one keep their order.

        Args:
            edge_index: int64 ``[2, E]``, an array that may be mapped.
            memory: Bytes.

        Raises:
            NodeIndexError: If an edge names a node that does not exist; with its position.
        """
        count = edge_index.shape[1]
        degree = np.zeros(self.num_nodes, np.int64)
        for at in range(0, count, _CHUNK):
            self._check(edge_index, at)
            targets = np.asarray(edge_index[1, at : at + _CHUNK])
            degree += np.bincount(targets, minlength=self.num_nodes)
        indptr = np.zeros(self.num_nodes + 1, np.int64)
        np.cumsum(degree, out=indptr[1:])
        self._indptr.write(0, torch.from_numpy(indptr))
        self._indices.path.write_bytes(b"")
        most = max(memory // _SORTED, 1)
        first = 0
        while first < self.num_nodes:
            last = int(np.searchsorted(indptr, indptr[first] + most, "right")) - 1
            last = min(max(last, first + 1), self.num_nodes)
            self._indices.write(int(indptr[first]), self._sorted(edge_index, first, last))
            first = last
        self._indptr.sync()
        self._indices.sync()

    def _check(self, edge_index: Any, at: int) -> None:
        for row, name in enumerate(("source", "target")):
            part = np.asarray(edge_index[row, at : at + _CHUNK])
            outside = (part < 0) | (part >= min(self.num_nodes, INT32_MAX))
            if outside.any():
                place = int(outside.argmax())
                raise NodeIndexError(
                    f"edge_index[{row}][{at + place}] is {int(part[place])} (the {name} of an "
                    f"edge): the graph has the nodes 0 to {self.num_nodes - 1}"
                )

    def _sorted(self, edge_index: Any, first: int, last: int) -> Tensor:
        rows, cols = [], []
        for at in range(0, edge_index.shape[1], _CHUNK):
            targets = np.asarray(edge_index[1, at : at + _CHUNK])
            inside = (targets >= first) & (targets < last)
            rows.append(targets[inside] - first)
            cols.append(np.asarray(edge_index[0, at : at + _CHUNK])[inside])
        row = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *rows]))
        col = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *cols]))
        return coo_to_csr(row, col, last - first)[1]

    def ends(self, first: int, last: int) -> Tensor:
        """Where the edges into some nodes begin, and end: int64 ``[last - first + 1]``."""
        return self._indptr.read(first, last + 1)

    def rows(self, first: int, last: int, loops: bool) -> EdgeRows:
        """The edges into some nodes; see :meth:`nodebits.plan.by_row.RowSource.edges`."""
        ends = self.ends(first, last)
        indices = self._indices.read(int(ends[0]), int(ends[-1]))
        indptr = ends - ends[0]
        if not loops:
            return EdgeRows(indptr, indices)
        nodes = torch.arange(first, last, dtype=torch.int32, device="cpu")
        targets = nodes.repeat_interleave(indptr.diff())
        keep = indices != targets
        row = torch.cat([targets[keep], nodes]).long() - first
        col = torch.cat([indices[keep], nodes]).long()
        made = coo_to_csr(row, col, last - first)
        return EdgeRows(made[0], made[1])
