"""Matrices that are read piece by piece: arrays, tensors, and files larger than memory."""

from __future__ import annotations

import hashlib
import os
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from nodebits.core.errors import FileFormatError, MissingExtraError, ShapeError
from nodebits.core.files import open_regular

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".parquet")


class Matrix(ABC):
    """Rows of numbers that need not fit the memory.

    Attributes:
        name: What messages call it.
        shape: ``(N, C)``.
    """

    name: str
    shape: tuple[int, int]

    @abstractmethod
    def rows(self, begin: int, end: int) -> Tensor:
        """Rows of a range, float32 ``[end - begin, C]``; what float32 cannot hold is infinite."""

    @abstractmethod
    def identity(self) -> str:
        """A text that differs for other contents, as far as that is cheap to tell."""


def open_matrix(source: Any) -> Matrix:
    """Opens a matrix; nothing but its head is read.

    Args:
        source: A path (.npy, .npz with one array, .pt, .parquet), a NumPy array, which may be a
            memory map, or a tensor; all ``[N, C]`` of real numbers. Of PyG's ``Data``, and of a
            data set that is one graph, the features.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is none of these.
        ShapeError: It is no matrix of real numbers.
        MissingExtraError: A Parquet file without pyarrow.
    """
    source = _features(source)
    if isinstance(source, Tensor):
        source = source.detach()
        return _Array(
            source, "the tensor", _digest(source) if source.layout == torch.strided else ""
        )
    if isinstance(source, np.ndarray):
        return _Array(_of_numpy(source, "the array"), "the array", _digest(source))
    path = Path(source)
    stamp = _stamp(path)
    if path.suffix == ".npy":
        return _Array(_of_numpy(_mapped(path), str(path)), str(path), stamp)
    if path.suffix == ".npz":
        return _Array(_of_numpy(_only_array(path), str(path)), str(path), stamp)
    if path.suffix in (".pt", ".pth"):
        return _Array(_saved_tensor(path), str(path), stamp)
    if path.suffix == ".parquet":
        return _Parquet(path, stamp)
    raise FileFormatError(
        f"{path}: a matrix of features is a file of one of the kinds {', '.join(SUFFIXES)}"
    )


def _features(source: Any) -> Any:
    """What PyG holds as features, of graphs and data sets; anything else as it is."""
    if isinstance(source, Dataset):
        if len(source) != 1:
            raise ShapeError(f"the data set has {len(source)} graphs: pass one of them, dataset[i]")
        source = source[0]
    if isinstance(source, Data):
        if source.x is None:
            raise ShapeError("the graph has no features x: pass the matrix that is to be packed")
        return source.x
    if not isinstance(source, (Tensor, np.ndarray, str, os.PathLike)):
        raise ShapeError(
            f"features are a {type(source).__name__}: expected a path, an array, a tensor, or "
            "PyG's Data"
        )
    return source


class _Array(Matrix):
    """What torch can index, mapped or not."""

    def __init__(self, values: Tensor, name: str, stamp: str) -> None:
        if values.layout != torch.strided or values.dim() != 2:
            raise ShapeError(
                f"{name} is {list(values.shape)} ({values.layout}): features are a dense matrix "
                "[num_nodes, channels]"
            )
        if values.is_complex() or (values.dtype == torch.bool and values.numel() == 0):
            raise ShapeError(f"{name} is {values.dtype}: features are real numbers")
        self.values, self.name = values, name
        self.shape = (values.size(0), values.size(1))
        self._stamp = stamp

    def rows(self, begin: int, end: int) -> Tensor:
        return self.values[begin:end].to(torch.float32, copy=True).contiguous()

    def identity(self) -> str:
        return f"{self._stamp} {self.values.dtype} {self.shape}"


class _Parquet(Matrix):
    """Columns of numbers, read by groups of rows."""

    def __init__(self, path: Path, stamp: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError(
                f"{path}: Parquet files need pyarrow, which is not installed: pip install pyarrow"
            ) from error
        try:
            self._file: Any = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise FileFormatError(f"{path} is no Parquet file: {error}") from error
        schema = self._file.schema_arrow
        for field in schema:
            kinds = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_boolean)
            if not any(kind(field.type) for kind in kinds):
                raise ShapeError(
                    f"{path}: column {field.name!r} is {field.type}: features are columns of "
                    "numbers; drop it, or encode it"
                )
        metadata = self._file.metadata
        self.name, self._stamp = str(path), stamp
        self.shape = (metadata.num_rows, len(schema))
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._kept: tuple[int, np.ndarray[Any, Any]] | None = None

    def rows(self, begin: int, end: int) -> Tensor:
        parts = []
        group = int(np.searchsorted(self._starts, begin, side="right")) - 1
        while begin < end:
            values, start = self._group(group), int(self._starts[group])
            stop = min(end, int(self._starts[group + 1]))
            parts.append(values[begin - start : stop - start])
            begin, group = stop, group + 1
        made = np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)
        return torch.from_numpy(np.ascontiguousarray(made))

    def _group(self, group: int) -> np.ndarray[Any, Any]:
        if self._kept is None or self._kept[0] != group:
            table = self._file.read_row_group(group)
            columns = [column.to_numpy().astype(np.float32) for column in table.columns]
            empty = np.empty((table.num_rows, 0), np.float32)
            self._kept = group, np.stack(columns, axis=1) if columns else empty
        return self._kept[1]

    def identity(self) -> str:
        return f"{self._stamp} {self.shape}"


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise FileFormatError(f"{path} cannot be read as .npy: {error}") from error


def _only_array(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise FileFormatError(
                    f"{path} holds {', '.join(archive.files) or 'nothing'}: a matrix of features "
                    "is one array; save it alone as .npy"
                )
            return archive[archive.files[0]]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} cannot be read as .npz: {error}") from error


def _saved_tensor(path: Path) -> Tensor:
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch words a bad file in many ways
        raise FileFormatError(f"{path} cannot be read as a tensor: {str(error)[:300]}") from error
    found = getattr(found, "x", found)
    if not isinstance(found, Tensor):
        raise FileFormatError(
            f"{path} holds a {type(found).__name__}: a matrix of features is a tensor"
        )
    return found.detach()


def _of_numpy(array: Any, name: str) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = getattr(array, "dtype", type(array).__name__)
        raise ShapeError(f"{name} is {kind}: features are a matrix of real numbers")
    if array.dtype.itemsize > 8 or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    if not array.flags.writeable:  # nothing here writes into it
        array = array.view()
        with np.errstate(all="ignore"):
            return _read_only(array)
    return torch.from_numpy(array)


def _read_only(array: Any) -> Tensor:
    """A tensor over memory that must not be written to, without torch's warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _stamp(path: Path) -> str:
    """Size and time of a file; opening it says what is wrong with a path."""
    with open_regular(path):
        status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _digest(values: Any) -> str:
    """A fingerprint of a few rows, and of the shape."""
    count = len(values)
    places = sorted({i * (count - 1) // 63 for i in range(64)}) if count else []
    digest = hashlib.sha256(str(tuple(values.shape)).encode())
    for place in places:
        row = torch.as_tensor(np.asarray(values[place], dtype=np.float64), device="cpu")
        digest.update(row.numpy().tobytes())
    return digest.hexdigest()[:16]
