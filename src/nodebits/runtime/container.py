"""The form of all our files: safetensors with one JSON header, checked bit by bit.

The one metadata key ``nodebits`` holds a SHA-256 and, after a space, the JSON that it is the digest
of: what kind of file it is, format version, contents, a CRC-32 per tensor over dtype, shape and
bytes. A flipped bit anywhere changes a checksum or breaks the structure; both are reported as
:class:`FileFormatError`. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nodebits.core.errors import FileFormatError, FileVersionError
from nodebits.core.files import write_atomically

FORMAT_VERSION = 2
MODEL, FEATURES = "nodebits", "nodebits features"
_KINDS = {MODEL: "a nodebits model", FEATURES: "a file of packed features"}


def checksum(tensor: Tensor) -> int:
    """CRC-32 of dtype, shape and bytes."""
    shape = f"{tensor.dtype}{list(tensor.shape)}".encode()
    data = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data
    return zlib.crc32(data, zlib.crc32(shape))


def write(
    path: str | Path, kind: str, contents: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes a file, atomically.

    Args:
        path: File to write; an existing one is replaced only when the new one is complete.
        kind: ``MODEL`` or ``FEATURES``.
        contents: JSON that says what the tensors are.
        tensors: What is stored.

    Raises:
        OutputError: If the file cannot be written; an existing one is untouched.
    """
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    header = {
        "format": kind,
        "version": FORMAT_VERSION,
        **contents,
        "checksums": {name: checksum(value) for name, value in kept.items()},
    }
    text = json.dumps(header, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    # One key: safetensors writes several in any order, and equal models should be equal files.
    write_atomically(path, safetensors.torch.save(kept, {"nodebits": f"{digest} {text}"}))


def read(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads and verifies a file.

    Returns:
        The header and the tensors.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated, damaged or of another kind.
        FileVersionError: If a newer version wrote it.
    """
    data = Path(path).read_bytes()
    header = read_header(data, path)
    if header["format"] != kind:
        found = _KINDS.get(header["format"], "a file of an unknown kind")
        raise FileFormatError(f"{path} is {found}, not {_KINDS[kind]}")
    return header, read_tensors(data, header, path)


def read_header(data: bytes, path: str | Path = "the file") -> dict[str, Any]:
    """Parses and verifies the JSON header of a file.

    Raises:
        FileFormatError: If the file is foreign, truncated or damaged.
        FileVersionError: If it was written by a newer version.
    """
    if len(data) < 8:
        raise FileFormatError(f"{path} has {len(data)} bytes: too short for a file of nodebits")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise FileFormatError(
            f"{path} is truncated or not a safetensors file: its header should have {length} "
            f"bytes, {len(data) - 8} follow"
        )
    try:
        outer = json.loads(data[8 : 8 + length])
        metadata = outer["__metadata__"]
        digest, _, text = metadata["nodebits"].partition(" ")
        # A damaged escape can decode to half a surrogate pair, which does not encode.
        found = hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is not a file of nodebits, or its header is damaged ({type(error).__name__}: "
            f"{error})"
        ) from error
    if set(metadata) != {"nodebits"}:
        raise FileFormatError(f"{path}: unexpected metadata; the header is damaged")
    if found != digest:
        raise FileFormatError(f"{path}: the header's checksum does not match; the file is damaged")
    header: dict[str, Any] = json.loads(text)
    version = header.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FileVersionError(
            f"{path} has format version {version}, this nodebits reads up to {FORMAT_VERSION}: "
            "upgrade nodebits"
        )
    return header


def read_tensors(data: bytes, header: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, each compared with its checksum."""
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error
    expected = header["checksums"]
    if set(tensors) != set(expected):
        names = sorted(set(tensors) ^ set(expected))
        raise FileFormatError(f"{path} is damaged: tensor {names[0]!r} is missing or unexpected")
    for name, tensor in tensors.items():
        if checksum(tensor) != expected[name]:
            raise FileFormatError(
                f"{path} is damaged: the checksum of tensor {name!r} does not match"
            )
    return tensors
