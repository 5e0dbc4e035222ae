"""What makes files of small models small: deflated contents, and small tensors in one.

A plan names hundreds of constants of some hundred bytes. Each entry of safetensors' table takes as
much, the name of a tensor stands in three places, and JSON within JSON is escaped. So a model's
file has only two things in the signed header that are not checksums: the kind of file and how long
its contents are. These, and a table of the small tensors, are JSON that is deflated, as the first
tensor of the file. The second holds the small tensors one after another.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import Integer, check_fields, check_object, shown
from nodebits.core.strict_json import parse_json, to_json
from nodebits.runtime.entries import (
    DTYPE_NAMES,
    DTYPES,
    SHAPE,
    Entry,
    begun,
    check_bools,
    memory_of,
    read_tensor,
    size_of,
)

# No submodule, parameter or buffer has a name that begins so.
CONTENTS, SMALL = ".contents", ".small"
# Tensors below are small: an entry of their own would add some percent at the least.
_SMALL_BYTES = 4096
# Both tensors are filled up with zeros to this, so that what follows lies where kernels read it.
_ALIGNED = 8
# Contents may be as long as the file, and this long in any file: what reading takes follows from
# the size of a file, however well it is deflated.
_FREE = 1 << 20
# What a tensor takes at most beside its bytes, and what all of them may take: as in strict_json.
_TENSOR_BYTES, _PER_BYTE, _SLACK = 1000, 12, 32 << 20
# So many may be in any file; more have entries of their own, which are bytes of it.
_MOST_SMALL = _SLACK // _TENSOR_BYTES


class Opened(NamedTuple):
    """A file that is being read: where reading stands, bytes of the file, its name for messages."""

    stream: BinaryIO
    size: int
    path: str | Path


class Piece(NamedTuple):
    """A tensor of the outer table as it is written: name, type, shape, bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    data: Any


def piece(name: str, tensor: Tensor) -> Piece:
    """A tensor on the CPU, contiguous, under a name."""
    return Piece(name, tensor.dtype, tuple(tensor.shape), memory_of(tensor))


def ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """By width of their types, then by name: each begins where its type is aligned."""
    return sorted(tensors.items(), key=lambda one: (-one[1].dtype.itemsize, one[0]))


def folded(contents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[int, list[Piece]]:
    """A model as its file holds it.

    Args:
        contents: JSON of the header.
        tensors: Contiguous, on the CPU.

    Returns:
        How many bytes the contents have before they are deflated, and the tensors of the outer
        table in their order.
    """
    few = islice((one for one in ordered(tensors) if one[1].nbytes < _SMALL_BYTES), _MOST_SMALL)
    small = dict(few)
    groups: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, tensor in small.items():
        groups.setdefault(tensor.dtype, {})[name] = tensor
    table = [
        [DTYPE_NAMES[dtype], {name: list(t.shape) for name, t in group.items()}]
        for dtype, group in groups.items()
    ]
    held = b"".join(bytes(memory_of(t)) for group in groups.values() for t in group.values())
    text = to_json({**contents, "small": table}, sort_keys=True, separators=(",", ":")).encode()
    data = _deflated(text, 9)
    if len(text) > max(_FREE, len(data) + sum(t.nbytes for t in tensors.values())):
        data = _deflated(text, 0)
    large = [piece(name, t) for name, t in ordered(tensors) if name not in small]
    return len(text), [_bytes(CONTENTS, data), _bytes(SMALL, held), *large]


def _deflated(text: bytes, level: int) -> bytes:
    press = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return press.compress(text) + press.flush()


def _bytes(name: str, data: bytes) -> Piece:
    data += bytes(-len(data) % _ALIGNED)
    return Piece(name, torch.uint8, (len(data),), data)


def first_two(entries: list[Entry], path: str | Path) -> tuple[Entry, Entry]:
    """The entries of contents and small tensors, in the order of a file's bytes.

    Raises:
        FileFormatError: If the file begins with others, or they are no bytes.
    """
    found = entries[:2]
    if [entry.name for entry in found] != [CONTENTS, SMALL]:
        names = ", ".join(shown(entry.name) for entry in found)
        raise FileFormatError(
            f"{path} is damaged: its first tensors are {names or 'none'}, not {CONTENTS!r} and "
            f"{SMALL!r}"
        )
    for entry in found:
        check_bytes(entry, path)
    return found[0], found[1]


def check_bytes(entry: Entry, path: str | Path) -> None:
    """Checks that an entry is one of plain bytes.

    Raises:
        FileFormatError: If not.
    """
    if entry.dtype != torch.uint8 or len(entry.shape) != 1:
        raise FileFormatError(
            f"{path}: tensor {entry.name!r} is {entry.dtype} {shown(list(entry.shape))}, not bytes"
        )


def read_contents(file: Opened, header: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """The whole header of a file.

    Args:
        file: Stands where the contents begin.
        header: As it is signed.
        entry: Of the contents.

    Returns:
        What is signed but for the length of the contents, with the contents.

    Raises:
        FileFormatError: If they are damaged, too long, no JSON, or say again what is signed.
    """
    path, most = file.path, max(_FREE, file.size)
    check_fields(header, {"contents": Integer(2, most)}, f"{path}: header", others=True)
    tensor = read_tensor(file.stream, entry, path)
    data = memory_of(tensor)
    _compare(zlib.crc32(data, begun(entry.dtype, entry.shape)), header, CONTENTS, path)
    text = _inflated(data, header["contents"], path)
    try:
        contents = parse_json(text)
    except ValueError as error:
        raise FileFormatError(f"{path}: its contents are damaged ({str(error)[:200]})") from error
    check_object(contents, f"{path}: the contents")
    twice = min(contents.keys() & header.keys(), default=None)
    if twice is not None:
        raise FileFormatError(f"{path}: the contents say {shown(twice)}, which the header says")
    return {**{key: header[key] for key in header if key != "contents"}, **contents}


def _inflated(data: Any, length: int, path: str | Path) -> bytes:
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        text = reader.decompress(data, length + 1)
    except zlib.error as error:
        raise FileFormatError(f"{path}: its contents are damaged ({error})") from error
    if len(text) != length or not reader.eof:
        raise FileFormatError(f"{path}: its contents are damaged: not {length} bytes, as it says")
    _check_filling(reader.unused_data, CONTENTS, path)
    return text


def read_small(file: Opened, header: dict[str, Any], entry: Entry) -> dict[str, Tensor]:
    """The small tensors; their table is taken out of the header.

    Args:
        file: Stands where they begin.
        header: With the contents.
        entry: Of all of them.

    Raises:
        FileFormatError: If the table is none, or does not fit the bytes, or these are damaged.
    """
    stream, size, path = file
    entries = list(_entries(header.pop("small", None), entry.end - entry.begin, size, path))
    names = [one.name for one in entries]
    again = min(header["checksums"].keys() & set(names), default=None)
    if again is not None or len(set(names)) < len(names):
        again = again if again is not None else next(n for n in names if names.count(n) > 1)
        raise FileFormatError(f"{path}: two tensors have the name {shown(again)}")
    found, tensors = begun(entry.dtype, entry.shape), {}
    for one in entries:
        tensors[one.name] = read_tensor(stream, one, path)
        found = zlib.crc32(memory_of(tensors[one.name]), found)
    filling = stream.read(entry.end - entry.begin - (entries[-1].end if entries else 0))
    _compare(zlib.crc32(filling, found), header, SMALL, path)
    _check_filling(filling, SMALL, path)
    for name, tensor in tensors.items():
        check_bools(name, tensor, path)
    return tensors


def _entries(table: Any, room: int, size: int, path: str | Path) -> Iterator[Entry]:
    """What the table of small tensors says, from the first byte of all of them on."""
    where = f"{path}: header.small"
    if not isinstance(table, list):
        raise FileFormatError(f"{where} is {shown(table)}, not a list")
    at = count = 0
    for group in table:
        if not isinstance(group, list) or len(group) != 2 or not isinstance(group[1], dict):
            raise FileFormatError(f"{where} has {shown(group)}, not a type and its tensors")
        dtype = DTYPES.get(group[0]) if isinstance(group[0], str) else None
        if dtype is None:
            raise FileFormatError(f"{where} has the type {shown(group[0])}, which no tensor has")
        count += len(group[1])
        if count * _TENSOR_BYTES > _PER_BYTE * size + _SLACK:
            raise FileFormatError(f"{where} has {count} tensors in a file of {size} bytes")
        for name, shape in group[1].items():
            place = f"{where}: tensor {shown(name)}"
            fault = SHAPE.fault(shape)
            if fault:
                raise FileFormatError(f"{place} has the shape {shown(shape)}, not {fault}")
            end = at + size_of(dtype, shape, place)
            if end > room:
                raise FileFormatError(f"{place} ends at byte {end}, of {room} that there are")
            yield Entry(name, at, end, dtype, tuple(shape))
            at = end
    if room - at >= _ALIGNED:
        raise FileFormatError(f"{where} has tensors of {at} bytes, {room} are there")


def _compare(found: int, header: dict[str, Any], name: str, path: str | Path) -> None:
    if found != header["checksums"].get(name):
        raise FileFormatError(f"{path} is damaged: the checksum of {name!r} does not match")


def _check_filling(data: Iterable[int], name: str, path: str | Path) -> None:
    filling = bytes(data)
    if len(filling) >= _ALIGNED or any(filling):
        raise FileFormatError(f"{path}: {name!r} has {len(filling)} bytes behind its end")
