"""Mutations of bytes, without any idea of what they mean."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

# Where sizes and signs turn over, and where parsers of numbers do.
MAGIC = [
    *(struct.pack("<q", sign * (1 << bits) + by) for bits in (0, 7, 8, 15, 16, 31, 32, 53, 62)
      for sign in (1, -1) for by in (-1, 0, 1)),
    struct.pack("<Q", (1 << 64) - 1),
    struct.pack("<Q", 1 << 63),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), 1e-45, -0.0, 3e38)),
    *(text.encode() for text in ("-1", "1e999", "NaN", "null", "[[[[", '"":', "\\ud800", "\0")),
]  # fmt: skip
Change = Callable[[random.Random, bytearray], None]


def _flip(r: random.Random, data: bytearray) -> None:
    for _ in range(r.choice((1, 1, 1, 2, 8))):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def _overwrite(r: random.Random, data: bytearray) -> None:
    at = r.randrange(len(data))
    value = r.choice(MAGIC) if r.random() < 0.7 else r.randbytes(r.randrange(1, 16))
    data[at : at + len(value)] = value[: len(data) - at]


def _insert(r: random.Random, data: bytearray) -> None:
    at = r.randrange(len(data) + 1)
    value = r.choice(MAGIC) if r.random() < 0.5 else r.randbytes(1) * r.choice((1, 8, 300))
    data[at:at] = value


def _delete(r: random.Random, data: bytearray) -> None:
    at = r.randrange(len(data))
    del data[at : at + r.choice((1, 2, 8, 64))]


def _truncate(r: random.Random, data: bytearray) -> None:
    del data[r.randrange(len(data)) :]


def _repeat(r: random.Random, data: bytearray) -> None:
    at, length = r.randrange(len(data)), r.choice((1, 8, 64, 256))
    data[at:at] = data[at : at + length] * r.choice((1, 1, 2, 16))


def _move(r: random.Random, data: bytearray) -> None:
    source, to, length = r.randrange(len(data)), r.randrange(len(data)), r.choice((1, 8, 64))
    part = data[source : source + length]
    data[to : to + len(part)] = part


CHANGES: tuple[Change, ...] = (_flip, _overwrite, _insert, _delete, _truncate, _repeat, _move)


def mutate_bytes(r: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to three changes; sometimes the end is that of ``other``."""
    made = bytearray(data)
    if other and r.random() < 0.05:
        made[r.randrange(len(made)) :] = other[r.randrange(len(other)) :]
    for _ in range(r.choice((1, 1, 2, 3))):
        if made:
            r.choice(CHANGES)(r, made)
    return bytes(made)
