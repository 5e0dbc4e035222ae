"""The form of all our files: safetensors with one JSON header, checked bit by bit.

The one metadata key ``nodebits`` holds a SHA-256 and, after a space, the JSON that it is the digest
of: what kind of file it is, format version, contents, a CRC-32 per tensor over dtype, shape and
bytes. A flipped bit anywhere changes a checksum or breaks the structure; both are reported as
:class:`FileFormatError`. Nothing in a file is executed. Models are written in the form of
:mod:`nodebits.runtime.folded`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError, FileVersionError
from nodebits.core.file_fields import Text, check_fields, check_object, shown
from nodebits.core.files import open_regular, write_atomically
from nodebits.core.strict_json import parse_json, to_json
from nodebits.runtime.entries import (
    DTYPE_NAMES,
    Entry,
    begun,
    check_bools,
    checksum,
    entry_of,
    read_tensor,
)
from nodebits.runtime.folded import (
    CONTENTS,
    SMALL,
    Opened,
    Piece,
    check_bytes,
    first_two,
    folded,
    ordered,
    piece,
    read_contents,
    read_small,
)

# The newest version of each form; that of models is the newest of all.
FORMAT_VERSION, PLAIN_VERSION = 4, 3
MODEL, FEATURES, CHECKPOINT = "nodebits", "nodebits features", "nodebits checkpoint"
ROWS, PART, PROGRESS = "nodebits rows", "nodebits part", "nodebits progress"
SESSION = "nodebits session"
# Far more than a model of a thousand layers has, and what safetensors itself allows.
_MOST_HEADER = 100_000_000
_KINDS = {
    MODEL: "a nodebits model",
    FEATURES: "a file of packed features",
    CHECKPOINT: "a checkpoint of a training run",
    ROWS: "packed features without a model",
    SESSION: "a snapshot of a session",
    PART: "a part of a graph",
    PROGRESS: "finished layers of a run on parts",
}


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
        ConfigError: If a tensor has a type that no file holds, or a name that files use themselves.
        OutputError: If the file cannot be written; an existing one is untouched.
    """
    for name, value in tensors.items():
        if value.dtype not in DTYPE_NAMES:
            raise ConfigError(f"tensor {name!r} is {value.dtype}, which a file cannot hold")
        if name in (CONTENTS, SMALL):
            raise ConfigError(f"tensor {name!r} has a name that files use themselves: rename it")
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    version = contents.get("version", FORMAT_VERSION if kind == MODEL else PLAIN_VERSION)
    header = {"format": kind, "version": version}
    if version > PLAIN_VERSION:
        signed = (*header, "checksums")
        more = {key: value for key, value in contents.items() if key not in signed}
        header["contents"], pieces = folded(more, kept)
    else:
        header |= contents
        pieces = [piece(name, tensor) for name, tensor in ordered(kept)]
    write_atomically(path, _joined(header, pieces))


def _joined(header: dict[str, Any], pieces: list[Piece]) -> bytes:
    """A file: the header is signed, and the first tensor begins at a multiple of 8 bytes."""
    sums = {one.name: zlib.crc32(one.data, begun(one.dtype, one.shape)) for one in pieces}
    text = to_json({**header, "checksums": sums}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    # One key: safetensors writes several in any order, and equal models should be equal files.
    outer: dict[str, Any] = {"__metadata__": {"nodebits": f"{digest} {text}"}}
    at = 0
    for name, dtype, shape, data in pieces:
        place = [at, at + len(data)]
        outer[name] = {"dtype": DTYPE_NAMES[dtype], "shape": shape, "data_offsets": place}
        at = place[1]
    raw = json.dumps(outer, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return b"".join([len(raw).to_bytes(8, "little"), raw, *(one.data for one in pieces)])


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
    small: dict[str, Tensor] = {}
    if header["version"] > PLAIN_VERSION:
        contents, bytes_of_small = first_two(entries, path)
        file = Opened(stream, size, path)
        header = read_contents(file, header, contents)
        small = read_small(file, header, bytes_of_small)
        entries = entries[2:]
    return header, small | _read_tensors(stream, header, entries, path)


def layout(
    stream: BinaryIO, size: int, kind: str, path: str | Path
) -> tuple[dict[str, Any], list[Entry], int]:
    """Reads and verifies what stands before the tensors; a model's contents are one of these.

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

    Args:
        data: The file, or its beginning: the header, and of a model the contents behind it.
        path: Of the file, for messages.

    Raises:
        FileFormatError: If the file is foreign, truncated or damaged.
        FileVersionError: If it was written by a newer version.
    """
    stream = io.BytesIO(data)
    header, table, _ = _read_header(stream, len(data), path)
    if header["version"] > PLAIN_VERSION:
        entry = entry_of(CONTENTS, table.get(CONTENTS), path)
        check_bytes(entry, path)
        header = read_contents(Opened(stream, len(data), path), header, entry)
    return header


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
    newest = FORMAT_VERSION if header.get("format") == MODEL else PLAIN_VERSION
    if not whole or not 1 <= version <= newest:
        raise FileVersionError(
            f"{path} has format version {shown(version)}, this nodebits reads 1 to {newest}: "
            "upgrade nodebits"
        )
    check_fields(header, {"format": Text()}, f"{path}: header", others=True)
    check_object(header.get("checksums"), f"{path}: header.checksums")
    return header, outer, 8 + length


def _entries(
    header: dict[str, Any], table: dict[str, Any], room: int, path: str | Path
) -> list[Entry]:
    """Where the tensors are: without gaps, and each with a checksum."""
    entries = sorted(
        (entry_of(name, entry, path) for name, entry in table.items()),
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
    for entry in entries:
        name, tensor = entry.name, read_tensor(stream, entry, path)
        if checksum(tensor) != header["checksums"][name]:
            raise FileFormatError(
                f"{path} is damaged: the checksum of tensor {shown(name)} does not match"
            )
        check_bools(name, tensor, path)
        tensors[name] = tensor
    return tensors
