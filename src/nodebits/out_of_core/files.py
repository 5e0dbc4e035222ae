"""Matrices in files of their own, written block by block and read in order of their rows."""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError, OutputError
from nodebits.core.files import write_atomically

# Bytes that are read at once, of which single rows are then taken.
PIECE = 1 << 22


class RowFile:
    """A matrix in a file, without a header.

    Args:
        path: The file.
        shape: Of a row.
        dtype: Of its values.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), dtype
        self.row_bytes = math.prod(self.shape) * dtype.itemsize
        self.bytes_read = 0

    def write(self, first: int, rows: Tensor) -> None:
        """Writes rows from one on.

        Raises:
            OutputError: If that fails.
        """
        flags = os.O_WRONLY | os.O_CREAT
        try:
            file = os.open(self.path, flags, 0o666)
            try:
                data = memoryview(_bytes(rows))
                at = first * self.row_bytes
                while data:
                    done = os.pwrite(file, data, at)
                    data, at = data[done:], at + done
            finally:
                os.close(file)
        except OSError as error:
            raise OutputError(
                error.errno, f"cannot write {self.path}: {error.strerror}", str(self.path)
            ) from error

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def read(self, first: int, last: int) -> Tensor:
        """Rows from one to before another.

        Raises:
            FileFormatError: If the file ends before them.
        """
        made = torch.empty((last - first, *self.shape), dtype=self.dtype, device="cpu")
        with self.path.open("rb") as stream:
            self._fill(stream.fileno(), first, _bytes(made))
        return made

    def take(self, index: Tensor) -> Tensor:
        """Some rows.

        Args:
            index: int64 ``[k]``, ascending.
        """
        made = torch.empty((index.numel(), *self.shape), dtype=self.dtype, device="cpu")
        if not made.numel():
            return made
        out, rows = _bytes(made).reshape(index.numel(), -1), index.numpy()
        step = max(PIECE // max(self.row_bytes, 1), 1)
        cuts = np.searchsorted(rows, np.arange(rows[0], rows[-1] + step + 1, step))
        with self.path.open("rb") as stream:
            for begin, end in itertools.pairwise(cuts):
                if begin == end:
                    continue
                first, last = int(rows[begin]), int(rows[end - 1]) + 1
                piece = np.empty((last - first) * self.row_bytes, dtype=np.uint8)
                self._fill(stream.fileno(), first, piece)
                out[begin:end] = piece.reshape(last - first, -1)[rows[begin:end] - first]
        return made

    def _fill(self, file: int, first: int, out: Any) -> None:
        view, at = memoryview(out), first * self.row_bytes
        while view:
            done = os.preadv(file, [view], at)
            if done == 0:
                raise FileFormatError(f"{self.path} ends at byte {at}: it is truncated")
            view, at = view[done:], at + done
            self.bytes_read += done


def let_go(array: Any) -> None:
    """Pages of a mapped file that were read leave this process; the system may keep them."""
    mapped = getattr(array, "_mmap", None)
    # Pages of a private map hold what was written to it, and nothing else does.
    if mapped is not None and array.mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _bytes(rows: Tensor) -> Any:
    return (
        rows.contiguous().view(-1).view(torch.uint8).numpy() if rows.numel() else np.empty(0, "u1")
    )


class Progress:
    """Which stages are done, in a file that is whole or not there.

    Args:
        folder: Where it is.
        key: What the stages are of: others are not taken up.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path, self._key = folder / "progress.json", key
        self.stages = 0
        self.values: dict[int, tuple[tuple[int, ...], torch.dtype]] = {}
        self._load()

    def _load(self) -> None:
        if not self._path.exists():
            return
        try:
            found = json.loads(self._path.read_text())
            if found["key"] != self._key:
                return
            self.stages = int(found["stages"])
            self.values = {
                int(v): (tuple(shape), getattr(torch, dtype))
                for v, (shape, dtype) in found["values"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{self._path} is damaged ({error}): remove it to begin anew"
            ) from error

    def done(self, stages: int, files: dict[int, RowFile]) -> None:
        """Notes that so many stages are done, whose values are on the disk."""
        self.stages = stages
        about = {v: [list(f.shape), str(f.dtype).removeprefix("torch.")] for v, f in files.items()}
        text = json.dumps({"key": self._key, "stages": stages, "values": about})
        write_atomically(self._path, text.encode())
