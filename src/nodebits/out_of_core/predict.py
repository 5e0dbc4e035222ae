"""A packed model on a graph that is larger than memory: stage by stage, block by block."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import (
    ConfigError,
    GraphError,
    OutOfMemoryError,
    ShapeError,
    UnsupportedLayerError,
)
from nodebits.core.files import ensure_writable_folder, writing
from nodebits.core.signature import names_of
from nodebits.graph import Graph
from nodebits.out_of_core.blocks import Block
from nodebits.out_of_core.broadcast import SourceBlocks
from nodebits.out_of_core.edges import EdgeFiles
from nodebits.out_of_core.files import PIECE, Progress, RowFile, let_go
from nodebits.out_of_core.stages import Stage, stages_of
from nodebits.plan.by_row import NotByRow, RowPlan
from nodebits.plan.plan import Plan
from nodebits.runtime.packed import PackedModel

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6,
          "GB": 10**9}  # fmt: skip
# Rows of the examples that a plan is made on, and of the trial that tells how large rows are.
_SAMPLE, _TRIAL = 1 << 12, 64
# Bytes of an edge while its block is summed: its source, with room to read it; with what finding
# the different sources takes; with loops; those of its weight, or of what else belongs to it.
EDGE_BYTES, FOUND, _LOOPED, _VALUES = 8, 32, 64, 128
# Bytes of a row besides its values: where its edges begin, in several forms.
_ROW = 64
# Rows of the widest value exist more than once while a step runs.
COPIES = 3
_LEAST = 32 << 20
# Rows that are looked up together in a mapped file.
_PAGES = 128
# Tables of this share of the memory are kept whole while a layer is computed.
PART = 2
# What a block takes of the memory that tables leave: sizes are those of a trial, and tensors do not
# leave the process at once.
SHARE = 0.75
ORDERS = ("targets", "sources")
WEIGHT = "edge_weight"


@torch.no_grad()
def predict_out_of_core(
    packed: PackedModel,
    features: Any,
    edge_index: Any,
    *,
    edge_weight: Any = None,
    folder: str | Path,
    memory: str | int = "2GiB",
    order: str = "targets",
) -> Tensor:
    """What ``packed.predict(features, edge_index)`` returns, bit for bit, in bounded memory.

    Edges and what the layers return are files. A layer is computed for as many targets at a time
    as fit; of its sources it reads those that the block needs, from front to back. Each layer that
    is done is a checkpoint: a run that was stopped goes on after it when it is called again with
    the same model, features and edges.

    In the order of sources each packed row is read once, and added to integer sums of all targets,
    which are a file. Sums with weights, attention and extremes go by targets in any case.

    Args:
        packed: The model, of features and edges.
        features: float32 ``[N, C]``: an array or tensor, as a rule mapped
            (``numpy.load(path, mmap_mode="r")``).
        edge_index: int64 ``[2, E]``, likewise; or a :class:`~nodebits.Graph`.
        edge_weight: float32 ``[E]``, likewise, which the model's forward takes by this name; or
            None.
        folder: For files and checkpoints; several times as large as packed features.
        memory: What the process may take at most, with what it has now: ``"2GiB"``, or bytes. As a
            rule it takes about half, since blocks are counted as if all values were there at once.
        order: ``"targets"``, or ``"sources"``; the same bits.

    Returns:
        As a rule float32 ``[N, classes]``, mapped from a file of the folder; its changes stay in
        memory.

    Raises:
        ConfigError: If ``memory`` is none or too small, there is no such order, there is no plan
            for the model, or it takes no ``edge_weight``; or a weight is negative.
        ShapeError: If features or weights are of another shape or type.
        UnsupportedLayerError: If a layer is not known to work row by row; names it.
        GraphError: If the edges are of another form.
        NodeIndexError: If an edge names a node that does not exist.
        NonFiniteError: If a feature or a weight is NaN or infinite.
        OutOfMemoryError: If the edges into one node do not fit.
        OutputBusyError: If another process works in the folder.
        OutputError: If a file cannot be written.
    """
    bound = memory_bytes(memory)
    if order not in ORDERS:
        raise ConfigError(f"order is {order!r}: use one of {', '.join(ORDERS)}")
    edges = _edges(edge_index)
    weight = _weights(edge_weight, packed, edges.shape[1])
    given = _Given(_matrix(features), edges, weight)
    plan, text = _row_plan(packed, given)
    for array in given:
        let_go(array)  # pages that an example touched are no memory that the process needs
    stages = stages_of(plan)
    folder = Path(folder)
    with writing(folder):
        ensure_writable_folder(folder)
        room = bound - _resident()
        if room < _LEAST:
            raise ConfigError(
                f"memory={memory!r} leaves {max(room, 0) >> 20} MiB beside what the process has "
                f"now: allow at least {(bound - room + _LEAST) >> 20} MiB"
            )
        run = _Run(
            plan, stages, folder, given, room, _key(f"{text} {stages}", given), order == "sources"
        )
        return run.all()


def memory_bytes(memory: str | int) -> int:
    """Bytes of ``"2GiB"``, ``"500 MB"`` or a number.

    Raises:
        ConfigError: If it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(\w*)\s*", str(memory))
    if isinstance(memory, bool) or found is None or found[2] not in _UNITS:
        raise ConfigError(f"memory is {memory!r}: expected such as '2GiB', '500 MB' or bytes")
    return int(float(found[1]) * _UNITS[found[2]])


class _Given(NamedTuple):
    """Arrays, as a rule mapped: features ``[N, C]``, edges ``[2, E]``, weights ``[E]`` or None."""

    x: Any
    edges: Any
    weight: Any


class _Run:
    def __init__(
        self,
        plan: RowPlan,
        stages: list[Stage],
        folder: Path,
        given: _Given,
        room: int,
        key: str,
        broadcast: bool,
    ) -> None:
        self._plan, self._stages, self._folder, self._room = plan, stages, folder, room
        self._given, self._broadcast = given, broadcast
        self._count = given.x.shape[0]
        self._edges = EdgeFiles(folder, self._count, given.weight is not None)
        self._progress = Progress(folder, key)
        self._files = {
            value: self._file(value, *about) for value, about in self._progress.values.items()
        }

    def _file(self, value: int, shape: tuple[int, ...], dtype: torch.dtype) -> RowFile:
        return RowFile(self._folder / f"value-{value}.bin", shape, dtype)

    def all(self) -> Tensor:
        if self._progress.stages == 0:
            self._files = {self._plan.kinds.first: self._features()}
            self._edges.build(self._given.edges, self._given.weight, self._room // 2)
            self._progress.done(1, self._files)
        for number, stage in enumerate(self._stages, 1):
            if number < self._progress.stages:
                continue
            self._run(stage)
            used = {v for s in self._stages[number:] for v in (*s.tables, *s.reads)}
            used |= {self._plan.output}
            gone = {v: f for v, f in self._files.items() if v not in used}
            self._files = {v: f for v, f in self._files.items() if v in used}
            self._progress.done(number + 1, self._files)
            for file in gone.values():
                file.path.unlink(missing_ok=True)
        found = self._files[self._plan.output]
        shape = (self._count, *found.shape)
        if not self._count:
            return torch.empty(shape, dtype=found.dtype, device="cpu")
        dtype = str(found.dtype).removeprefix("torch.")
        return torch.from_numpy(np.memmap(found.path, dtype, "c", shape=shape))

    def _features(self) -> RowFile:
        file = self._file(self._plan.kinds.first, self._given.x.shape[1:], torch.float32)
        file.path.write_bytes(b"")
        for first, last in _pieces(self._given.x):
            file.write(first, torch.from_numpy(np.array(self._given.x[first:last], np.float32)))
            let_go(self._given.x)
        file.sync()
        return file

    def _run(self, stage: Stage) -> None:
        sums = self._sums(stage) if self._broadcast else {}
        tables = self._tables(stage, sums)

        def block(first: int, last: int) -> Block:
            given = self._plan, self._files, self._edges, first, last, sums, tables
            return Block(*given)

        trial = block(0, min(_TRIAL, self._count))
        shapes = trial.run(stage)
        made = [_row_bytes(rows) for rows in trial.made.values()]
        for value, rows in shapes.items():
            self._files[value] = self._file(value, tuple(rows.shape[1:]), rows.dtype)
            self._files[value].path.write_bytes(b"")
        for first, last in self._blocks(stage, made, sums, tables):
            for value, rows in block(first, last).run(stage).items():
                self._files[value].write(first, rows)
        for value in shapes:
            self._files[value].sync()
        for file in sums.values():
            file.path.unlink()

    def _sums(self, stage: Stage) -> dict[int, RowFile]:
        """Integers of the sums of a stage that may be added up, in files."""
        found: dict[int, RowFile] = {}
        for number in (n for n in stage.steps if self._plan.adds_up(n)):
            table = self._files[self._plan.sources(number)[0]]
            columns = int(self._plan.steps[number]["args"][6])
            found[number] = RowFile(self._folder / f"sum-{number}.bin", (columns,), torch.int32)
            rows = self._room // PART // max(table.row_bytes, 1)
            blocks = SourceBlocks(self._folder, self._edges, rows, self._room // 4)
            blocks.add_up(self._plan, number, table, found[number])
            blocks.remove()
        return found

    def _tables(self, stage: Stage, done: Mapping[int, RowFile]) -> dict[int, Tensor]:
        """What sums read of neighbours, where all of it takes no more than a part of the memory."""
        left = [n for n in stage.steps if n not in done and self._plan.is_sum(n)]
        values = {v for n in left for v in self._plan.sources(n)}
        size = self._count * sum(self._files[v].row_bytes for v in values)
        if size > self._room // PART:
            return {}
        return {value: self._files[value].read(0, self._count) for value in values}

    def _blocks(
        self,
        stage: Stage,
        made: list[int],
        done: Mapping[int, RowFile],
        held: Mapping[int, Tensor],
    ) -> Iterator[tuple[int, int]]:
        """Rows that fit the memory with all that is computed of them.

        Args:
            stage: The steps.
            made: Bytes of a row of each value that a block has at its end.
            done: Sums that are on the disk.
            held: Values whose rows are all in memory.
        """
        of_sums = [file.row_bytes for file in done.values()]
        of_row = sum(made) + COPIES * max([*made, *of_sums], default=0) + sum(of_sums) + _ROW
        left = [n for n in stage.steps if n not in done]
        if stage.whole:
            if self._count * of_row > self._room:
                step = self._plan.steps[stage.steps[0]]["op"]
                raise OutOfMemoryError(
                    f"the step {step!r} is rounded by where its rows stand, so that all "
                    f"{self._count} rows are computed together, which takes "
                    f"{self._count * of_row >> 20} MiB: allow more memory"
                )
            yield 0, self._count
            return
        cost = _Cost(of_row, *self._of_edges(left, held))
        room = self._room - sum(rows.numel() * rows.element_size() for rows in held.values())
        sums = any(self._plan.is_sum(n) or self._plan.reads_edges(n) for n in left)
        first = 0
        while first < self._count:
            last = min(first + max(int(SHARE * room) // of_row, 1), self._count)
            if sums:
                last = self._fitting(first, last, cost, room)
            yield first, last
            first = last

    def _of_edges(self, left: list[int], held: Mapping[int, Tensor]) -> tuple[int, int]:
        """Bytes of an edge, and of a source that is read for it.

        Args:
            left: Steps that read edges, or others.
            held: Values whose rows are all in memory.
        """
        sums = [n for n in left if self._plan.is_sum(n)]
        read = {value for n in sums for value in self._plan.sources(n)} - {*held}
        of_edges = any(self._plan.axis(out) == "edge" for n in left for out in self._outs(n))
        loops = any(self._plan.topology(n).loops for n in left if self._plan.reads_edges(n))
        of_edge = _LOOPED if loops or of_edges else FOUND if read else EDGE_BYTES
        of_edge += _VALUES if of_edges or self._given.weight is not None else 0
        return of_edge, sum(self._files[value].row_bytes for value in read)

    def _outs(self, number: int) -> list[int]:
        outs: list[int] = self._plan.steps[number]["outs"]
        return outs

    def _fitting(self, first: int, last: int, cost: _Cost, room: int) -> int:
        """The node behind the last of a block.

        Args:
            first: The first node.
            last: The one behind the last that may be in it.
            cost: Of its rows and edges.
            room: Bytes.
        """
        ends = self._edges.ends(first, last).numpy()
        rows = np.arange(1, last - first + 1)
        taken = cost.of(rows, ends[1:] - ends[0] + rows, self._count)
        fit = int(np.searchsorted(taken, SHARE * room, "right"))
        if fit == 0:
            degree = int(ends[1] - ends[0])
            if int(taken[0]) > room:
                raise OutOfMemoryError(
                    f"the {degree} edges into node {first} and their sources take "
                    f"{int(taken[0]) >> 20} MiB, and {room >> 20} MiB are left: allow more "
                    "memory"
                )
            fit = 1
        return first + fit


class _Cost(NamedTuple):
    """Bytes of a block: of a row, of an edge, and of a source that is read."""

    of_row: int
    of_edge: int
    of_source: int

    def of(self, rows: Any, edges: Any, count: int) -> Any:
        """Of so many rows and edges, of a graph of ``count`` nodes."""
        return (
            rows * self.of_row
            + edges * self.of_edge
            + np.minimum(edges, count) * self.of_source  # each source is read once
        )


def _matrix(features: Any) -> Any:
    x = features.numpy() if isinstance(features, Tensor) else features
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != "f":
        told = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ShapeError(f"features are {told}: expected a float array [num_nodes, channels]")
    return x


def _edges(edge_index: Any) -> Any:
    edges = edge_index.edge_index() if isinstance(edge_index, Graph) else edge_index
    if isinstance(edge_index, Graph) and edge_index.valued:
        raise GraphError(
            "the graph has weights or is a matrix: pass edge_index [2, E], and edge_weight [E]"
        )
    edges = edges.numpy() if isinstance(edges, Tensor) and not edges.is_sparse else edges
    if not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[0] != 2:
        raise GraphError(f"edges are a {type(edge_index).__name__}: expected int64 [2, E]")
    if edges.dtype != np.int64:
        raise GraphError(f"edges are {edges.dtype}: expected int64 [2, E]")
    return edges


def _weights(edge_weight: Any, packed: PackedModel, edges: int) -> Any:
    if edge_weight is None:
        return None
    names = names_of(packed.module.forward)
    if WEIGHT not in names:
        raise ConfigError(
            f"edge_weight is given, and forward of {type(packed.module).__name__} takes "
            f"({', '.join(names)}): leave it out, or name the argument {WEIGHT}"
        )
    found = edge_weight.detach().numpy() if isinstance(edge_weight, Tensor) else edge_weight
    told = type(found).__name__
    if isinstance(found, np.ndarray):
        found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
        told = f"{found.dtype} {list(found.shape)}"
    if not isinstance(found, np.ndarray) or found.shape != (edges,) or found.dtype.kind != "f":
        raise ShapeError(f"edge weights are {told}: expected float32 [{edges}], one for each edge")
    return found


def _row_plan(packed: PackedModel, given: _Given) -> tuple[RowPlan, str]:
    """The plan by rows, made on the first edges, and what tells it from others."""
    x, edges, weight = given
    first = np.array(edges[:, :_SAMPLE])
    nodes, places = np.unique(first, return_inverse=True)
    inside = (nodes >= 0) & (nodes < x.shape[0])
    if first.size and inside.all():
        rows, ends = _taken(x, nodes), places.reshape(2, -1)
    else:  # a call of the same kind; a bad edge is named where all are looked at
        rows = np.linspace(-1, 1, 3 * x.shape[1], dtype=np.float32).reshape(3, -1)
        ends = np.array([[0, 1, 2], [1, 2, 0]])
    weights: dict[str, Tensor] = {}
    if weight is not None:
        weights[WEIGHT] = torch.linspace(0.25, 1, ends.shape[1], device="cpu")
    plan = packed.plan(torch.from_numpy(rows), torch.from_numpy(ends), **weights)
    if isinstance(plan, str):
        raise ConfigError(f"there is no plan for the model, of which blocks are run: {plan}")
    try:
        found = RowPlan(plan)
    except NotByRow as error:
        raise UnsupportedLayerError(
            f"{error.layer} cannot be run block by block: {error}"
        ) from None
    if not found.fits(lambda value, axis: _size(found, value, axis, x, edges)):
        raise ConfigError("the model's forward goes another way on a graph of this size")
    return found, _digest(plan)


def _taken(x: Any, nodes: Any) -> Any:
    """Some rows; a row brings its neighbours in a mapped file into memory, which goes again."""
    pieces = []
    for part in np.array_split(nodes, max(len(nodes) // _PAGES, 1)):
        pieces.append(np.array(x[part], np.float32))
        let_go(x)
    return np.concatenate(pieces)


def _size(plan: RowPlan, value: int, axis: int, x: Any, edges: Any) -> int:
    if axis == 0 and plan.axis(value) == "node":
        return int(x.shape[0])
    if plan.kinds.edges_counted(f"d{value}.{axis}"):
        return int(edges.shape[1])
    return int(x.shape[axis]) if value == plan.kinds.first else 2


def _digest(plan: Plan) -> str:
    found = hashlib.sha256(plan.text.encode())
    for name in sorted(plan.constants):
        t = plan.constants[name].detach().contiguous()
        found.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        found.update(t.view(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return found.hexdigest()


def _key(text: str, given: _Given) -> str:
    """What a run is of: the model and its stages, and all bytes of features, edges and weights."""
    x, edges, weight = given
    told = [hashlib.sha256(text.encode()).hexdigest(), str(x.shape), str(edges.shape)]
    for array in (x, *edges, *([] if weight is None else [weight])):
        found = 0
        for first, last in _pieces(array):
            found = zlib.crc32(np.ascontiguousarray(array[first:last]).data, found)
            let_go(array)
        told.append(str(found))
    return " ".join(told)


def _row_bytes(rows: Tensor) -> int:
    """Bytes of a row of a tensor."""
    return rows[:1].numel() * rows.element_size()


def _pieces(array: Any) -> Iterator[tuple[int, int]]:
    rows = max(PIECE // max(array[:1].nbytes, 1), 1)
    for first in range(0, array.shape[0], rows):
        yield first, min(first + rows, array.shape[0])


def _resident() -> int:
    """Bytes of this process that are in memory; a guess where the system does not tell."""
    if sys.platform != "linux":
        return 512 << 20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
