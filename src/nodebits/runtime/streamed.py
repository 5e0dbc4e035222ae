"""Files of the container's form that are written piece by piece and read as mapped memory.

The header, which holds checksums of everything behind it, has a fixed room at the front and is
written last. Tensors begin at a page of their file, wider types before narrower ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.files import open_regular
from nodebits.core.strict_json import to_json
from nodebits.runtime import container
from nodebits.runtime.entries import DTYPES, begun

# The length of the header and the header.
ROOM = 8192
# Bytes that are looked at at once where a checksum is computed of mapped memory.
_PIECE = 1 << 24
# By name: the type, as safetensors names it, and the shape.
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def places(tensors: Shapes) -> dict[str, int]:
    """Where the bytes of each tensor begin in the file.

    Raises:
        ConfigError: A tensor would begin where its type is not aligned.
    """
    at, found = ROOM, {}
    for name, one in tensors.items():
        if at % DTYPES[one[0]].itemsize:
            raise ConfigError(f"{one[0]} values of tensor {name!r} would begin at byte {at}")
        found[name] = at
        at += _bytes(one)
    return found


def end_of(tensors: Shapes) -> int:
    """Bytes of the whole file."""
    return ROOM + sum(_bytes(one) for one in tensors.values())


def head(
    kind: str, contents: dict[str, Any], tensors: Shapes, checksums: Mapping[str, int]
) -> bytes:
    """The first :data:`ROOM` bytes of a file.

    Args:
        kind: As :func:`nodebits.runtime.container.write`.
        contents: JSON that says what the tensors are.
        tensors: In the order of their bytes.
        checksums: Of each of them.

    Raises:
        ConfigError: They do not fit.
    """
    inner = to_json(
        {
            "format": kind,
            "version": container.PLAIN_VERSION,
            **contents,
            "checksums": dict(checksums),
        },
        sort_keys=True,
    )
    digest = hashlib.sha256(inner.encode()).hexdigest()
    table: dict[str, Any] = {"__metadata__": {"nodebits": f"{digest} {inner}"}}
    starts = places(tensors)
    for name, one in tensors.items():
        begin = starts[name] - ROOM
        offsets = [begin, begin + _bytes(one)]
        table[name] = {"dtype": one[0], "shape": list(one[1]), "data_offsets": offsets}
    text = json.dumps(table).encode()
    room = ROOM - 8
    if len(text) > room:
        raise ConfigError(f"a header of {len(text)} bytes is more than the {room} of such a file")
    return room.to_bytes(8, "little") + text.ljust(room)


def mapped(
    path: str | Path, kind: str, verify: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Opens a file of the container's form as mapped memory: pages come in as they are read.

    Args:
        path: The file.
        kind: As :func:`nodebits.runtime.container.read`.
        verify: Whether its bytes are read once and compared with their checksums; the header
            always is.

    Returns:
        The header, and tensors over the mapped memory, which must not be written to.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated, damaged or of another kind.
        FileVersionError: If a newer version wrote it.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        header, entries, start = container.layout(stream, size, kind, path)
        name = str(Path(f"/proc/self/fd/{stream.fileno()}")) if _by_descriptor() else str(path)
        memory = (
            torch.from_file(name, shared=False, size=size, dtype=torch.uint8)
            if size
            else torch.empty(0, dtype=torch.uint8, device="cpu")
        )
    tensors = {}
    for entry in entries:
        if (start + entry.begin) % entry.dtype.itemsize:
            raise FileFormatError(
                f"{path}: tensor {entry.name!r} begins at byte {start + entry.begin}, where no "
                f"{entry.dtype} can be read in place"
            )
        part = memory[start + entry.begin : start + entry.end]
        tensor = (
            part.view(entry.dtype)
            if part.numel()
            else torch.empty(0, dtype=entry.dtype, device="cpu")
        )
        tensor = tensor.view(entry.shape)
        if verify and _checksum(tensor) != header["checksums"][entry.name]:
            raise FileFormatError(
                f"{path} is damaged: the checksum of tensor {entry.name!r} does not match"
            )
        tensors[entry.name] = tensor
    return header, tensors


def _by_descriptor() -> bool:
    """Whether an open file can be opened again by its number: it is the one that was checked."""
    return Path("/proc/self/fd").is_dir()


def _checksum(tensor: Tensor) -> int:
    found = begun(tensor.dtype, tensor.shape)
    if tensor.numel():
        data = tensor.view(-1).view(torch.uint8).numpy().data
        for begin in range(0, len(data), _PIECE):
            found = zlib.crc32(data[begin : begin + _PIECE], found)
    return found


def _bytes(one: tuple[str, tuple[int, ...]]) -> int:
    return math.prod(one[1]) * DTYPES[one[0]].itemsize
