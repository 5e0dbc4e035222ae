"""The second pass over a matrix: codes, written as they come, so that memory holds a piece alone.

What is written lies in ``.NAME.partial`` beside the file, and how far it came in
``.NAME.progress``: the same call goes on there. The file appears when it is whole.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from nodebits import ops
from nodebits.core.affine import affine_qparams
from nodebits.core.errors import FileFormatError, OutputError
from nodebits.core.files import refuse_existing, write_atomically, writing
from nodebits.core.own_scale import OwnScale
from nodebits.core.packing import row_bytes
from nodebits.core.strict_json import read_json
from nodebits.runtime import streamed
from nodebits.runtime.container import ROWS
from nodebits.runtime.entries import DTYPES, begun
from nodebits.store.matrix import Matrix, open_matrix
from nodebits.store.packing import Packing
from nodebits.store.ranges import Ranges, checked_rows, find_ranges

_SAVE_SECONDS = 5.0


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        path: The file.
        shape: ``(N, C)``.
        bytes: Of the file.
        float_bytes: Of the matrix in float32.
        clipped: Values beyond the ranges of a sample, which took the nearest code.
        resumed: Rows that an earlier call had written.
    """

    path: Path
    shape: tuple[int, int]
    bytes: int
    float_bytes: int
    clipped: int
    resumed: int


def pack_features(
    source: Any,
    out: str | Path,
    packing: Packing | None = None,
    *,
    force: bool = False,
    progress: bool | None = False,
) -> Packed:
    """Packs a matrix of features into a file; the matrix may be larger than memory.

    Two passes: one for ranges, one that writes. A call that was stopped goes on where it was.
    Scales: per row from its largest magnitude, as packed models do with raw features; per column
    or tensor from the extremes.

    Args:
        source: As :func:`nodebits.store.matrix.open_matrix`.
        out: File to write.
        packing: Width, granularity; ``Packing()`` by default.
        force: Whether an existing file may be replaced.
        progress: Bars; None on a terminal only.

    Raises:
        OutputExistsError: The file exists, and ``force`` is false.
        OutputBusyError: Another call writes it.
        OutputError: It cannot be written.
        NonFiniteError: The matrix holds NaN or infinity; names row and column.
        ShapeError: It is no matrix of real numbers.
        FileFormatError: Its file cannot be read.
    """
    packing = Packing() if packing is None else packing
    matrix, path = open_matrix(source), Path(out)
    with writing(path):
        refuse_existing([path], force)
        return _Writer(matrix, path, packing, progress).run()


class _Writer:
    """One call of :func:`pack_features`."""

    def __init__(self, matrix: Matrix, path: Path, packing: Packing, progress: bool | None) -> None:
        self.matrix, self.path, self.packing = matrix, path, packing
        self.hidden = None if progress is None else not progress
        absolute = path.absolute()
        self.partial = absolute.parent / f".{path.name}.partial"
        self.note = absolute.parent / f".{path.name}.progress"
        asked = {k: v for k, v in asdict(packing).items() if k != "chunk_rows"}
        # What an older version began has ranges of rows that were cut by another rule.
        if packing.granularity == "row":
            asked["trim"] = OwnScale.usual(packing.bits, False).trim
        self.job = f"{matrix.identity()} {json.dumps(asked, sort_keys=True)}"
        rows, columns = matrix.shape
        self.width = row_bytes(columns, packing.bits)
        self.by_row = packing.granularity == "row"
        scales = {"tensor": 1, "column": columns, "row": rows}[packing.granularity]
        # Scales stand before the codes: their places are known, and aligned.
        self.tensors = {
            "scale": ("F32", (scales,)),
            "zero_point": ("F32", (1 if self.by_row else scales,)),
            "packed": ("U8", (rows, self.width)),
        }

    def run(self) -> Packed:
        """Both passes."""
        state = self._read_note()
        if state is None:
            ranges = self._first_pass()
            state = {
                "job": self.job,
                "low": ranges.low.tolist(),
                "high": ranges.high.tolist(),
                "rows": 0,
                "clipped": 0,
                "crc": {name: self._begun(name) for name in self.tensors},
            }
        resumed = int(state["rows"])
        try:
            self._second_pass(state)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            message = f"cannot write {self.path}: {error.strerror or error}"
            raise OutputError(error.errno, message, str(self.path)) from error
        rows, columns = self.matrix.shape
        size = self.path.stat().st_size
        return Packed(
            self.path, (rows, columns), size, 4 * rows * columns, int(state["clipped"]), resumed
        )

    def _first_pass(self) -> Ranges:
        total = min(self.packing.sample_rows or self.matrix.shape[0], self.matrix.shape[0])
        with tqdm(total=total, desc="ranges", unit="row", disable=self.hidden) as bar:
            return find_ranges(
                self.matrix,
                self.packing.chunk_rows,
                self.packing.sample_rows,
                self.packing.seed,
                bar.update,
            )

    def _begun(self, name: str) -> int:
        dtype, shape = self.tensors[name]
        return begun(DTYPES[dtype], shape)

    def _second_pass(self, state: dict[str, Any]) -> None:
        rows, _ = self.matrix.shape
        ranges = Ranges(
            torch.tensor(state["low"], device="cpu"), torch.tensor(state["high"], device="cpu")
        )
        scale, zero_point = self._fixed(ranges)
        places = streamed.places(self.tensors)
        # Whatever lies beyond what the note says is written again.
        with open(self.partial, "r+b" if self.partial.exists() else "w+b") as stream:
            last = time.monotonic()
            with tqdm(
                total=rows, initial=state["rows"], desc="packing", unit="row", disable=self.hidden
            ) as bar:
                for begin in range(state["rows"], rows, self.packing.chunk_rows):
                    end = min(begin + self.packing.chunk_rows, rows)
                    x = checked_rows(self.matrix, begin, end)
                    if self.by_row:
                        part = self._own(ranges).scale(x)
                        packed = ops.quantize_pack(x, part, zero_point, 0, self.packing.bits)
                        self._put(stream, state, "scale", places["scale"] + 4 * begin, part)
                    else:
                        axis = 1 if self.packing.granularity == "column" else -1
                        packed = ops.quantize_pack(x, scale, zero_point, axis, self.packing.bits)
                        state["clipped"] += self._clipped(x, ranges)
                    self._put(
                        stream, state, "packed", places["packed"] + self.width * begin, packed
                    )
                    state["rows"] = end
                    bar.update(end - begin)
                    if time.monotonic() - last > _SAVE_SECONDS:
                        self._save_note(stream, state)
                        last = time.monotonic()
            if not self.by_row:
                self._put(stream, state, "scale", places["scale"], scale)
            self._put(stream, state, "zero_point", places["zero_point"], zero_point)
            self._finish(stream, state, ranges)
        os.replace(self.partial, self.path)
        self.note.unlink(missing_ok=True)

    def _own(self, ranges: Ranges) -> OwnScale:
        return OwnScale.usual(self.packing.bits, ranges.signed)

    def _fixed(self, ranges: Ranges) -> tuple[Tensor, Tensor]:
        """What is known before the second pass; rows bring scales of their own."""
        if self.by_row:
            middle = self._own(ranges).zero_point
            return torch.empty(0, device="cpu"), torch.full((1,), middle, device="cpu")
        if self.packing.granularity == "tensor":
            low = ranges.low.min().view(1) if ranges.low.numel() else torch.zeros(1, device="cpu")
            high = (
                ranges.high.max().view(1) if ranges.high.numel() else torch.zeros(1, device="cpu")
            )
            return affine_qparams(low, high, self.packing.bits)
        return affine_qparams(ranges.low, ranges.high, self.packing.bits)

    def _clipped(self, x: Tensor, ranges: Ranges) -> int:
        if self.packing.sample_rows is None:
            return 0
        low, high = ranges.low, ranges.high
        if self.packing.granularity == "tensor" and low.numel():
            low, high = low.min(), high.max()
        return int(((x < low) | (x > high)).sum())

    def _put(
        self, stream: BinaryIO, state: dict[str, Any], name: str, place: int, values: Tensor
    ) -> None:
        data = values.contiguous().view(-1).view(torch.uint8).numpy().data
        stream.seek(place)
        stream.write(data)
        state["crc"][name] = zlib.crc32(data, state["crc"][name])

    def _finish(self, stream: BinaryIO, state: dict[str, Any], ranges: Ranges) -> None:
        contents = {
            "shape": list(self.matrix.shape),
            "bits": self.packing.bits,
            "granularity": self.packing.granularity,
            "signed": ranges.signed,
            "trim": self.by_row and self._own(ranges).trim,
        }
        stream.seek(0)
        stream.write(streamed.head(ROWS, contents, self.tensors, state["crc"]))
        stream.truncate(streamed.end_of(self.tensors))
        stream.flush()
        os.fsync(stream.fileno())

    def _save_note(self, stream: BinaryIO, state: dict[str, Any]) -> None:
        stream.flush()
        os.fsync(stream.fileno())  # the note never says more than the disk holds
        write_atomically(self.note, json.dumps(state).encode())

    def _read_note(self) -> dict[str, Any] | None:
        """How far the same job came; None begins anew."""
        if not (self.note.exists() and self.partial.exists()):
            return None
        try:
            state = read_json(self.note, "a note of how far packing came")
            rows, columns = self.matrix.shape
            whole = (
                state["job"] == self.job
                and 0 <= int(state["rows"]) <= rows
                and len(state["low"]) == len(state["high"]) == columns
                and set(state["crc"]) == set(self.tensors)
                and int(state["clipped"]) >= 0
            )
        except (FileFormatError, KeyError, TypeError, ValueError):
            return None
        end = streamed.places(self.tensors)["packed"] + self.width * int(state["rows"])
        return state if whole and self.partial.stat().st_size >= end else None
