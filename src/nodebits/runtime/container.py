"""The form of all our files: safetensors with one JSON header, checked bit by bit.

The one metadata key ``nodebits`` holds a SHA-256 and, after a space, the JSON that it is the digest
of: what kind of file it is, format version, contents, a CRC-32 per tensor over dtype, shape and
bytes. A flipped bit anywhere changes a checksum or breaks the structure; both are reported as
:class:`FileFormatError`. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError, FileVersionError
from nodebits.core.file_fields import (
    Choice,
    Integer,
    ListOf,
    Options,
    Text,
    check_fields,
    check_object,
    shown,
)
from nodebits.core.files import open_regular, write_atomically
from nodebits.core.strict_json import parse_json, to_json

FORMAT_VERSION = 3
MODEL, FEATURES, CHECKPOINT = "nodebits", "nodebits features", "nodebits checkpoint"
ROWS, PART, PROGRESS = "nodebits rows", "nodebits part", "nodebits progress"
SESSION = "nodebits session"
# Far more than a model of a thousand layers has, and what safetensors itself allows.
_MOST_HEADER = 100_000_000
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
_ENTRY: Options = {
    "dtype": Choice(tuple(DTYPES)),
    "shape": ListOf(Integer(0, 1 << 48)),
    "data_offsets": ListOf(Integer(0, 1 << 60), 2),
}
_KINDS = {
    MODEL: "a nodebits model",
    FEATURES: "a file of packed features",
    CHECKPOINT: "a checkpoint of a training run",
    ROWS: "packed features without a model",
    SESSION: "a snapshot of a session",
    PART: "a part of a graph",
    PROGRESS: "finished layers of a run on parts",
}


class Entry(NamedTuple):
    """An entry of a file's table: name, first and last byte behind the header, type, shape."""

    name: str
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def checksum(tensor: Tensor) -> int:
    """CRC-32 of dtype, shape and bytes."""
    shape = f"{tensor.dtype}{list(tensor.shape)}".encode()
    data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
    return zlib.crc32(data, zlib.crc32(shape))


def write(
    path: str | Path, kind: str, contents: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes a file, atomically.

    Args:
        path: File to write; an existing one is replaced only when the new one is complete.
        kind: ``MODEL``, ``FEATURES`` or ``CHECKPOINT``.
        contents: JSON that says what the tensors are.
        tensors: What is stored.

    Raises:
        ConfigError: If a tensor has a type that no file holds.
        OutputError: If the file cannot be written; an existing one is untouched.
    """
    for name, value in tensors.items():
        if value.dtype not in DTYPES.values():
            raise ConfigError(f"tensor {name!r} is {value.dtype}, which a file cannot hold")
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    header = {
        "format": kind,
        "version": FORMAT_VERSION,
        **contents,
        "checksums": {name: checksum(value) for name, value in kept.items()},
    }
    text = to_json(header, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    # One key: safetensors writes several in any order, and equal models should be equal files.
    write_atomically(path, safetensors.torch.save(kept, {"nodebits": f"{digest} {text}"}))


def read(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads and verifies a file.

    Nothing is allocated before the file is known to be long enough to fill it, and no byte is held
    twice: tensors are read into the memory that they keep.

    Returns:
        The header and the tensors.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated, damaged or of another kind, or no file (a
            folder, a pipe, a device).
        FileVersionError: If a newer version wrote it.
    """
    with open_regular(path) as stream:
        return read_stream(stream, os.fstat(stream.fileno()).st_size, kind, path)


def read_stream(
    stream: BinaryIO, size: int, kind: str, path: str | Path = "the file"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """:func:`read` of what is open already: ``size`` bytes from where ``stream`` stands."""
    header, entries, _ = layout(stream, size, kind, path)
    return header, _read_tensors(stream, header, entries, path)


def layout(
    stream: BinaryIO, size: int, kind: str, path: str | Path
) -> tuple[dict[str, Any], list[Entry], int]:
    """Reads and verifies what stands before the tensors.

    Returns:
        The header, where tensors are in the order of their bytes, and where the first begins.

    Raises:
        FileFormatError: If the file is foreign, truncated, damaged or of another kind.
        FileVersionError: If a newer version wrote it.
    """
    header, table, start = _read_header(stream, size, path)
    if header["format"] != kind:
        found = _KINDS.get(header["format"], "a file of an unknown kind")
        raise FileFormatError(f"{path} is {found}, not {_KINDS[kind]}")
    return header, _entries(header, table, size - start, path), start


def read_header(data: bytes, path: str | Path = "the file") -> dict[str, Any]:
    """Parses and verifies the JSON header of a file.

    Raises:
        FileFormatError: If the file is foreign, truncated or damaged.
        FileVersionError: If it was written by a newer version.
    """
    return _read_header(io.BytesIO(data), len(data), path)[0]


def _read_header(
    stream: BinaryIO, size: int, path: str | Path
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The header, the table of tensors, and where their bytes begin."""
    first = stream.read(8)
    if len(first) < 8:
        raise FileFormatError(f"{path} has {len(first)} bytes: too short for a file of nodebits")
    length = int.from_bytes(first, "little")
    if length > size - 8:
        raise FileFormatError(
            f"{path} is truncated or not a safetensors file: its header should have {length} "
            f"bytes, {max(size - 8, 0)} follow"
        )
    if length > _MOST_HEADER:
        raise FileFormatError(
            f"{path}: a header of {length} bytes is beyond the limit of {_MOST_HEADER}"
        )
    raw = stream.read(length)
    if len(raw) != length:
        raise FileFormatError(f"{path} is truncated: it ends in its header")
    try:
        outer = parse_json(raw)
        metadata = outer.pop("__metadata__")
        digest, _, text = metadata["nodebits"].partition(" ")
        # A damaged escape can decode to half a surrogate pair, which does not encode.
        encoded = text.encode()
        found = hashlib.sha256(encoded).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is not a file of nodebits, or its header is damaged ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error
    if set(metadata) != {"nodebits"}:
        raise FileFormatError(f"{path}: unexpected metadata; the header is damaged")
    if found != digest:
        raise FileFormatError(f"{path}: the header's checksum does not match; the file is damaged")
    try:
        header = parse_json(encoded)
    except ValueError as error:
        raise FileFormatError(f"{path}: the header is damaged ({str(error)[:200]})") from error
    check_object(header, f"{path}: the header")
    version = header.get("version")
    whole = isinstance(version, int) and not isinstance(version, bool)
    if not whole or not 1 <= version <= FORMAT_VERSION:
        raise FileVersionError(
            f"{path} has format version {shown(version)}, this nodebits reads 1 to "
            f"{FORMAT_VERSION}: upgrade nodebits"
        )
    check_fields(header, {"format": Text()}, f"{path}: header", others=True)
    check_object(header.get("checksums"), f"{path}: header.checksums")
    return header, outer, 8 + length


def _entries(
    header: dict[str, Any], table: dict[str, Any], room: int, path: str | Path
) -> list[Entry]:
    """Where the tensors are: without gaps, and each with a checksum."""
    entries = sorted(
        (_entry(name, entry, path) for name, entry in table.items()),
        key=lambda entry: (entry.begin, entry.end),
    )
    at = 0
    for entry in entries:
        if entry.begin != at:
            raise FileFormatError(
                f"{path} is damaged: tensor {shown(entry.name)} begins at byte {entry.begin}, not "
                f"{at}"
            )
        at = entry.end
    if at != room:
        raise FileFormatError(
            f"{path} is truncated or damaged: its tensors take {at} bytes, {room} follow its header"
        )
    expected = header["checksums"]
    if table.keys() != expected.keys():
        name = min(table.keys() ^ expected.keys())
        raise FileFormatError(f"{path} is damaged: tensor {shown(name)} is missing or unexpected")
    return entries


def _read_tensors(
    stream: BinaryIO, header: dict[str, Any], entries: list[Entry], path: str | Path
) -> dict[str, Tensor]:
    """The tensors of a file, each compared with its checksum."""
    tensors: dict[str, Tensor] = {}
    for name, begin, end, dtype, shape in entries:
        tensor = torch.empty(shape, dtype=dtype, device="cpu")
        memory = tensor.view(-1).view(torch.uint8).numpy().data if end > begin else b""
        if memory and stream.readinto(memory) != end - begin:  # type: ignore[attr-defined]
            raise FileFormatError(f"{path} is truncated: it ends in tensor {shown(name)}")
        if checksum(tensor) != header["checksums"][name]:
            raise FileFormatError(
                f"{path} is damaged: the checksum of tensor {shown(name)} does not match"
            )
        if dtype == torch.bool and end > begin and max(memory) > 1:
            raise FileFormatError(
                f"{path}: tensor {shown(name)} has a bool that is neither 0 nor 1"
            )
        tensors[name] = tensor
    return tensors


def _entry(name: str, entry: Any, path: str | Path) -> Entry:
    where = f"{path}: the entry of tensor {shown(name)}"
    check_fields(entry, _ENTRY, where)
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if len(shape) > _MOST_AXES or end - begin != size:
        raise FileFormatError(
            f"{where} has {end - begin} bytes for {entry['dtype']} {shown(list(shape))}"
        )
    return Entry(name, begin, end, dtype, shape)
