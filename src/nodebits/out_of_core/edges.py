"""Edges on the disk, in order of their targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, NodeIndexError, NonFiniteError
from nodebits.graph.csr import INT32_MAX
from nodebits.ops import coo_to_csr
from nodebits.out_of_core.files import RowFile, let_go
from nodebits.plan.by_row import EdgeRows

# Edges that are looked at together.
_CHUNK = 1 << 21
# Bytes that an edge takes while those of some targets are sorted.
_SORTED = 64


class EdgeFiles:
    """Rows of edges in files: where they begin, their sources, and weights where they have some.

    Args:
        folder: Where they are.
        num_nodes: Number of nodes.
        weighted: Whether edges have weights.
        name: Of the files.
    """

    def __init__(
        self, folder: Path, num_nodes: int, weighted: bool = False, name: str = "edges"
    ) -> None:
        self.num_nodes, self._folder, self._name = num_nodes, folder, name
        self.indptr = RowFile(folder / f"{name}-indptr.bin", (), torch.int64)
        self.indices = RowFile(folder / f"{name}-indices.bin", (), torch.int32)
        self.weight: RowFile | None = None
        if weighted:
            self.weight = RowFile(folder / f"{name}-weight.bin", (), torch.float32)

    @property
    def bytes_read(self) -> int:
        """Bytes that were read so far."""
        return sum(one.bytes_read for one in self._files)

    @property
    def _files(self) -> list[RowFile]:
        return [self.indptr, self.indices, *([] if self.weight is None else [self.weight])]

    def build(self, edge_index: Any, weight: Any, memory: int) -> None:
        """Sorts edges by target; those of one keep their order.

        They are read twice: degrees tell which targets fit the memory together, and edges go to a
        file for each such range, which is then sorted by itself.

        Args:
            edge_index: int64 ``[2, E]``, an array that may be mapped.
            weight: float ``[E]``, likewise, or None.
            memory: Bytes.

        Raises:
            NodeIndexError: If an edge names a node that does not exist; with its position.
            NonFiniteError: If a weight is NaN or infinite; likewise.
            ConfigError: If one is negative; likewise.
        """
        degree = np.zeros(self.num_nodes, np.int64)
        for at, part in _chunks(edge_index, weight):
            self._check(part, at)
            degree += np.bincount(part[1], minlength=self.num_nodes)
        indptr = np.zeros(self.num_nodes + 1, np.int64)
        np.cumsum(degree, out=indptr[1:])
        self.indptr.write(0, torch.from_numpy(indptr))
        for file in self._files[1:]:
            file.path.write_bytes(b"")
        bounds = _ranges(indptr, max(memory // _SORTED, 1))
        if len(bounds) <= 2:
            chunks = [part for _, part in _chunks(edge_index, weight)]
            self._sort(
                0, self.num_nodes, 0, [np.concatenate(one) for one in zip(*chunks, strict=True)]
            )
        else:
            self._sort_apart(edge_index, weight, bounds, indptr)
        for file in self._files:
            file.sync()

    def _check(self, part: list[Any], at: int) -> None:
        for row, name in enumerate(("source", "target")):
            outside = (part[row] < 0) | (part[row] >= min(self.num_nodes, INT32_MAX))
            if outside.any():
                place = int(outside.argmax())
                raise NodeIndexError(
                    f"edge_index[{row}][{at + place}] is {int(part[row][place])} (the {name} of an "
                    f"edge): the graph has the nodes 0 to {self.num_nodes - 1}"
                )
        if len(part) > 2 and not (part[2] >= 0).all():  # codes of both signs have a zero point
            place = int((~(part[2] >= 0)).argmax())
            said = f"edge_weight[{at + place}] is {part[2][place]}"
            if np.isnan(part[2][place]):
                raise NonFiniteError(said)
            raise ConfigError(f"{said}: blocks sum weights that are not negative, use predict")
        if len(part) > 2 and np.isinf(part[2]).any():
            raise NonFiniteError(f"edge_weight[{at + int(np.isinf(part[2]).argmax())}] is infinite")

    def _sort_apart(self, edge_index: Any, weight: Any, bounds: list[int], indptr: Any) -> None:
        fields = [("source", "<i4"), ("target", "<i4"), ("weight", "<f4")]
        kind = np.dtype(fields if weight is not None else fields[:2])
        paths = [self._folder / f"{self._name}-part-{i}.bin" for i in range(len(bounds) - 1)]
        for path in paths:
            path.write_bytes(b"")
        for _, part in _chunks(edge_index, weight):
            of = np.searchsorted(bounds, part[1], "right") - 1
            order = np.argsort(of, kind="stable")
            ends = np.searchsorted(of[order], np.arange(len(bounds)))
            made = np.empty(order.size, kind)
            for name, values in zip(kind.names or (), part, strict=True):
                made[name] = values[order]
            for path, begin, end in zip(paths, ends, ends[1:], strict=False):
                if end > begin:
                    with path.open("ab") as stream:
                        made[begin:end].tofile(stream)
        for path, (first, last) in zip(paths, itertools.pairwise(bounds), strict=True):
            held = np.fromfile(path, kind)
            path.unlink()
            columns = [held[name] for name in kind.names or ()]
            del held
            self._sort(first, last, int(indptr[first]), columns)

    def _sort(self, first: int, last: int, at: int, columns: list[Any]) -> None:
        """Writes the edges into some targets, of which the first is at a place of the files."""
        source, target = (torch.from_numpy(one.astype(np.int64)) for one in columns[:2])
        _, indices, order = coo_to_csr(target - first, source, last - first)
        self.indices.write(at, indices)
        if self.weight is not None:
            weight = torch.from_numpy(columns[2].astype(np.float32))
            self.weight.write(at, weight[order])

    def ends(self, first: int, last: int) -> Tensor:
        """Where the edges into some nodes begin, and end: int64 ``[last - first + 1]``."""
        return self.indptr.read(first, last + 1)

    def rows(
        self, first: int, last: int, loops: bool, looped: tuple[int, int] | None = None
    ) -> EdgeRows:
        """The edges into some nodes; see :meth:`nodebits.plan.by_row.RowSource.edges`.

        Args:
            first: The first node.
            last: The one behind the last.
            loops: Whether each has a loop in place of others, and no weights.
            looped: Nodes that get theirs here; None: all.
        """
        ends = self.ends(first, last)
        place = int(ends[0]), int(ends[-1])
        indices = self.indices.read(*place)
        indptr = ends - ends[0]
        if not loops:
            weight = None if self.weight is None else self.weight.read(*place)
            return EdgeRows(indptr, indices, weight)
        nodes = torch.arange(first, last, dtype=torch.int32, device="cpu")
        targets = nodes.repeat_interleave(indptr.diff())
        keep = indices != targets
        if looped is not None:
            nodes = nodes[(nodes >= looped[0]) & (nodes < looped[1])]
        row = torch.cat([targets[keep], nodes]).long() - first
        col = torch.cat([indices[keep], nodes]).long()
        made = coo_to_csr(row, col, last - first)
        return EdgeRows(made[0], made[1])


def pieces(ends: Tensor, of_edge: int, of_row: int, memory: int) -> Iterator[tuple[int, int]]:
    """Ranges of nodes that fit the memory with the edges into them, one node at least.

    Args:
        ends: int64 ``[N + 1]``, where the edges of nodes begin.
        of_edge: Bytes of an edge.
        of_row: Bytes of a node.
        memory: Bytes.
    """
    cost = ends.numpy() * of_edge + np.arange(ends.numel()) * of_row
    at = 0
    while at < ends.numel() - 1:
        last = max(int(np.searchsorted(cost, cost[at] + memory, "right")) - 1, at + 1)
        yield at, last
        at = last


def _ranges(indptr: Any, most: int) -> list[int]:
    """Bounds of ranges of targets with so many edges at most, one target at least."""
    bounds, count = [0], len(indptr) - 1
    while bounds[-1] < count:
        first = bounds[-1]
        last = int(np.searchsorted(indptr, indptr[first] + most, "right")) - 1
        bounds.append(min(max(last, first + 1), count))
    return bounds


def _chunks(edge_index: Any, weight: Any) -> Iterator[tuple[int, list[Any]]]:
    """Sources, targets and weights of some edges, and the place of the first."""
    for at in range(0, max(edge_index.shape[1], 1), _CHUNK):
        rows = [edge_index[0], edge_index[1], *([] if weight is None else [weight])]
        yield at, [np.asarray(one[at : at + _CHUNK]) for one in rows]
        let_go(edge_index)
        let_go(weight)
