"""Sparse ``.npz`` files of the Amazon, Coauthor and CitationFull sets.

The result is that of ``torch_geometric.io.read_npz``, which holds several dense copies of the
features on the way; here they are made dense once.

SciPy's compiled code trusts the indices that it is given, and NumPy the sizes that an array states:
both are checked before.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import remove_self_loops, to_undirected

from nodebits.core.errors import FileFormatError, memory_errors
from nodebits.core.files import open_regular
from nodebits.data.extras import require

# What is unpacked may take so many bytes for one of the archive, and so many besides.
_PER_BYTE, _SLACK = 20, 64 << 20
_MOST_COLUMNS = 1 << 20  # of features, which are made dense
# NumPy itself has Python's parser read this.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][fiub]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{0,19}(?:, ?\d{1,19})*),?\), \} *\n"
)
_PARTS = ("data", "indices", "indptr", "shape")
_NAMES = {"labels", *(f"{name}_{part}" for name in ("attr", "adj") for part in _PARTS)}
_MAGIC = b"\x93NUMPY"


def read_npz(path: Path) -> Data:
    """Reads one graph, made undirected and without self loops.

    Args:
        path: File with the CSR parts ``attr_*`` and ``adj_*``, and ``labels``.

    Returns:
        ``x`` float32 ``[N, F]`` with every positive value set to 1, ``edge_index``, ``y``.

    Raises:
        FileFormatError: If parts are missing, or do not fit each other.
        zipfile.BadZipFile: If it is no archive.
        OutOfMemoryError: If the dense features do not fit the memory.
    """
    arrays = _arrays(path)
    words, links = _csr(arrays, "attr"), _csr(arrays, "adj")
    labels = _array(arrays, "labels", "iub")
    nodes = words.shape[0]
    if links.shape != (nodes, nodes) or labels.shape != (nodes,):
        raise FileFormatError(
            f"attr has {nodes} rows, adj is {links.shape}, labels are {labels.shape}"
        )
    if words.shape[1] > _MOST_COLUMNS:
        raise FileFormatError(f"attr_shape says {words.shape[1]} columns, {_MOST_COLUMNS} at most")
    links = links.tocoo()
    y = torch.from_numpy(labels).long()
    edge_index = torch.stack([torch.from_numpy(side).long() for side in (links.row, links.col)])
    edge_index, _ = remove_self_loops(edge_index)
    with memory_errors():
        x = _dense_words(words)
    return Data(x=x, edge_index=to_undirected(edge_index, num_nodes=x.size(0)), y=y)


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a graph by name; nothing is unpickled, and other members are not read."""
    with open_regular(path) as stream, ZipFile(stream) as archive:
        entries = [e for e in archive.infolist() if e.filename.removesuffix(".npy") in _NAMES]
        size, limit = sum(e.file_size for e in entries), stream.seek(0, io.SEEK_END) * _PER_BYTE
        if size > limit + _SLACK:
            raise FileFormatError(f"{size} bytes are packed into {limit // _PER_BYTE}")
        return {e.filename.removesuffix(".npy"): _parsed(archive.read(e), e) for e in entries}


def _parsed(data: bytes, entry: Any) -> np.ndarray[Any, Any]:
    # The length of the header has two bytes in version 1 of the format, four in version 2.
    begin = {b"\1\0": 10, b"\2\0": 12}.get(data[6:8], 0)
    length = int.from_bytes(data[8:begin], "little")
    found = _HEADER.fullmatch(data, begin, begin + length)
    if data[:6] != _MAGIC or not begin or found is None:
        raise FileFormatError(f"{entry.filename} is no array of numbers: {data[begin:][:60]!r}")
    dtype = np.dtype(found[1].decode())
    shape = [int(size) for size in found[3].split(b",") if size.strip()]
    room = len(data) - begin - length
    if math.prod(shape) * dtype.itemsize != room:
        raise FileFormatError(f"{entry.filename}: {room} bytes for {dtype} {shape}")
    # A copy: what is read from bytes cannot be written to, which torch warns about.
    array = np.frombuffer(data[begin + length :], dtype).copy()
    return array.reshape(shape, order="F" if found[2] == b"True" else "C")


def _array(
    arrays: dict[str, np.ndarray[Any, Any]], name: str, kinds: str, length: int | None = None
) -> np.ndarray[Any, Any]:
    """A vector of numbers of these kinds, in this machine's byte order."""
    array = arrays.get(name)
    if array is None:
        raise FileFormatError(f"the array {name!r} is missing")
    good = array.dtype.kind in kinds and array.ndim == 1 and length in (None, array.size)
    if not good:
        raise FileFormatError(f"{name} is {array.dtype} {list(array.shape)}")
    return array.astype(array.dtype.newbyteorder("="))


def _csr(arrays: dict[str, np.ndarray[Any, Any]], name: str) -> Any:
    """A SciPy matrix whose parts fit each other."""
    rows, cols = (int(size) for size in _array(arrays, f"{name}_shape", "iu", 2))
    data = _array(arrays, f"{name}_data", "fiub")
    indices = _array(arrays, f"{name}_indices", "iu", data.size)
    if not (0 <= rows < 1 << 31 and 0 <= cols < 1 << 31):
        raise FileFormatError(f"{name}_shape is {[rows, cols]}")
    indptr = _array(arrays, f"{name}_indptr", "iu", rows + 1)
    steps = np.diff(indptr.astype(np.int64))
    if indptr[0] != 0 or indptr[-1] != data.size or (steps < 0).any():
        raise FileFormatError(f"{name}_indptr does not rise from 0 to {data.size}")
    if data.size and not (0 <= int(indices.min()) and int(indices.max()) < cols):
        raise FileFormatError(f"{name}_indices are {indices.min()} to {indices.max()} of {cols}")
    parts = data, indices.astype(np.int32), indptr.astype(np.int64)
    return require("scipy.sparse").csr_matrix(parts, (rows, cols))


def _dense_words(words: Any) -> Tensor:
    """float32 ``[N, F]`` of a CSR matrix, positive values as 1."""
    words.sum_duplicates()
    rows, cols = words.shape
    values = torch.from_numpy(np.where(words.data > 0, 1, words.data)).float()
    first = torch.arange(rows, device="cpu") * cols
    counts = torch.from_numpy(np.diff(words.indptr)).long()
    places = first.repeat_interleave(counts) + torch.from_numpy(words.indices).long()
    x = torch.zeros(rows, cols, device="cpu")
    x.view(-1)[places] = values
    return x
