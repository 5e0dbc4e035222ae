"""Tensors as files hold them: names of types, entries of a table, checksums, bytes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import Choice, Integer, ListOf, Options, check_fields, shown

_MOST_AXES = 8
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# As a file may say it: the axes are counted, and the product is compared with bytes that are there.
SHAPE = ListOf(Integer(0, 1 << 48))
_ENTRY: Options = {
    "dtype": Choice(tuple(DTYPES)),
    "shape": SHAPE,
    "data_offsets": ListOf(Integer(0, 1 << 60), 2),
}


class Entry(NamedTuple):
    """An entry of a file's table: name, first and last byte behind the header, type, shape."""

    name: str
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def entry_of(name: str, about: Any, path: str | Path) -> Entry:
    """An entry of the outer header.

    Args:
        name: Of the tensor.
        about: JSON: its type, its shape, and where it is.
        path: Of the file, for messages.

    Raises:
        FileFormatError: If it is none, or its shape does not take the bytes that it has.
    """
    where = f"{path}: the entry of tensor {shown(name)}"
    check_fields(about, _ENTRY, where)
    begin, end = about["data_offsets"]
    dtype, shape = DTYPES[about["dtype"]], about["shape"]
    if end - begin != size_of(dtype, shape, where):
        raise FileFormatError(
            f"{where} has {end - begin} bytes for {about['dtype']} {shown(shape)}"
        )
    return Entry(name, begin, end, dtype, tuple(shape))


def size_of(dtype: torch.dtype, shape: Sequence[int], where: str) -> int:
    """Bytes of a tensor.

    Raises:
        FileFormatError: If it has too many axes.
    """
    if len(shape) > _MOST_AXES:
        raise FileFormatError(f"{where} has {len(shape)} axes, {_MOST_AXES} are the most")
    return math.prod(shape) * dtype.itemsize


def memory_of(tensor: Tensor) -> Any:
    """The bytes of a contiguous tensor on the CPU, as something with a buffer to read or fill."""
    return tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def begun(dtype: torch.dtype, shape: Sequence[int]) -> int:
    """The checksum of a tensor before its first byte, to go on with ``zlib.crc32``."""
    return zlib.crc32(f"{dtype}{list(shape)}".encode())


def checksum(tensor: Tensor) -> int:
    """CRC-32 of dtype, shape and bytes."""
    found = tensor.detach().cpu().contiguous()
    return zlib.crc32(memory_of(found), begun(found.dtype, found.shape))


def read_tensor(stream: BinaryIO, entry: Entry, path: str | Path) -> Tensor:
    """The tensor whose bytes follow in ``stream``, read into the memory that it keeps.

    Raises:
        FileFormatError: If the file ends before.
    """
    tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
    memory = memory_of(tensor)
    if memory and stream.readinto(memory) != len(memory):  # type: ignore[attr-defined]
        raise FileFormatError(f"{path} is truncated: it ends in tensor {shown(entry.name)}")
    return tensor


def check_bools(name: str, tensor: Tensor, path: str | Path) -> None:
    """Looks at a tensor that was read: its bytes are values of its type.

    Raises:
        FileFormatError: If one is a bool that is neither 0 nor 1.
    """
    if tensor.dtype == torch.bool and tensor.numel() and max(memory_of(tensor)) > 1:
        raise FileFormatError(f"{path}: tensor {shown(name)} has a bool that is neither 0 nor 1")
