"""Updates as bytes: what a log holds of each.

A record is a head with a checksum of its own, a payload, and an end whose last byte is not zero:
so a record of which bytes are missing, or zeros, is told from one that is whole but damaged.
Records of the first version (magic ``NBLR``) have no end, and are read still.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError

KINDS = ("add_edges", "remove_edges", "add_nodes", "remove_nodes", "set_features")
MAGIC = b"NBL2"
_FIRST_MAGIC = b"NBLR"
MAGICS = (MAGIC, _FIRST_MAGIC)
# No flip of one bit makes its last byte a zero.
END = b"END."
# Magic, bytes of the payload, number of the update, CRC-32 of the payload; then that of all these.
_HEAD = struct.Struct("<4sIQI")
_CHECK = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECK.size
MOST_PAYLOAD = 2**32 - 1
_DTYPES = (torch.float32, torch.int64, torch.int32)
_MOST_AXES = 2


class Update(NamedTuple):
    """One update.

    Attributes:
        kind: One of :data:`KINDS`.
        tensors: Its arguments: edges ``[2, k]``, nodes ``[k]``, features ``[k, C]``, weights.
    """

    kind: str
    tensors: tuple[Tensor, ...]


class Head(NamedTuple):
    """What stands before a payload: its bytes, the number of the update, its checksum, the end."""

    size: int
    number: int
    checksum: int
    end: bytes

    @property
    def record_bytes(self) -> int:
        """Bytes of the whole record."""
        return HEAD_BYTES + self.size + len(self.end)

    def payload(self, record: memoryview) -> memoryview | None:
        """The payload of a record; None where it is damaged, or not all of it is there."""
        last = HEAD_BYTES + self.size
        found = record[HEAD_BYTES:last]
        whole = record[last : self.record_bytes] == self.end
        return found if whole and zlib.crc32(found) == self.checksum else None


def encoded(number: int, update: Update) -> bytes:
    """A record.

    Raises:
        FileFormatError: If it is larger than a record can be.
    """
    parts = [bytes((KINDS.index(update.kind), len(update.tensors)))]
    for t in update.tensors:
        parts.append(bytes((_DTYPES.index(t.dtype), t.dim())))
        parts.append(struct.pack(f"<{t.dim()}q", *t.shape))
        parts.append(t.contiguous().view(-1).numpy().tobytes())
    payload = b"".join(parts)
    if len(payload) > MOST_PAYLOAD:
        raise FileFormatError(
            f"an update of {len(payload)} bytes is more than a record of the log holds "
            f"({MOST_PAYLOAD}): make it in parts"
        )
    head = _HEAD.pack(MAGIC, len(payload), number, zlib.crc32(payload))
    return head + _CHECK.pack(zlib.crc32(head)) + payload + END


def head_of(data: memoryview) -> Head | None:
    """What stands at the beginning of ``data``; None where that is no head of a record."""
    magic = bytes(data[: len(MAGIC)])
    if len(data) < HEAD_BYTES or magic not in MAGICS:
        return None
    if _CHECK.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size]):
        return None
    _, size, number, checksum = _HEAD.unpack_from(data)
    return Head(size, number, checksum, END if magic == MAGIC else b"")


def is_torn(rest: bytes) -> bool:
    """Whether a record that is not whole was never finished, rather than damaged later.

    Args:
        rest: From its beginning to the end of the file. A write that was interrupted left a part
            of the record, or zeros in place of what had not reached the disk.
    """
    written = len(rest.rstrip(b"\0"))
    head = head_of(memoryview(rest))
    if head is not None:
        return written < head.record_bytes
    begins = any(rest[: min(written, len(magic))] == magic[:written] for magic in MAGICS)
    return written < HEAD_BYTES and begins


def decoded(payload: memoryview, where: str) -> Update:
    """The update of a payload whose checksum was compared.

    Raises:
        FileFormatError: If another program wrote it.
    """
    try:
        kind, count = KINDS[payload[0]], payload[1]
        at, tensors = 2, []
        for _ in range(count):
            dtype, axes = _DTYPES[payload[at]], payload[at + 1]
            if axes > _MOST_AXES:
                raise ValueError(f"an array of {axes} axes")
            shape = struct.unpack_from(f"<{axes}q", payload, at + 2)
            at += 2 + 8 * axes
            size = dtype.itemsize
            for n in shape:
                size *= n
            if size < 0 or at + size > len(payload):
                raise ValueError(f"an array of {size} bytes")
            flat = (
                torch.frombuffer(bytearray(payload[at : at + size]), dtype=dtype)
                if size
                else (torch.empty(0, dtype=dtype, device="cpu"))
            )
            tensors.append(flat.view(shape))
            at += size
        if at != len(payload):
            raise ValueError("bytes behind its arrays")
    except (IndexError, ValueError, struct.error, RuntimeError) as error:
        raise FileFormatError(f"{where} is no update of this version: {error}") from error
    return Update(kind, tuple(tensors))
