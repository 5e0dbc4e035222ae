"""The form of our files, put together of parts that may be wrong."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

from fuzz.jsonwise import to_text

SIZES = {
    "F64": (8, "torch.float64"),
    "F32": (4, "torch.float32"),
    "F16": (2, "torch.float16"),
    "BF16": (2, "torch.bfloat16"),
    "I64": (8, "torch.int64"),
    "I32": (4, "torch.int32"),
    "I16": (2, "torch.int16"),
    "I8": (1, "torch.int8"),
    "U8": (1, "torch.uint8"),
    "U16": (2, "torch.uint16"),
    "BOOL": (1, "torch.bool"),
}


def checksum(dtype: Any, shape: Any, data: bytes) -> int:
    """That of a tensor, as a header has it."""
    name = SIZES[dtype][1] if isinstance(dtype, str) and dtype in SIZES else "?"
    return zlib.crc32(data, zlib.crc32(f"{name}{shape}".encode()))


def file_of(
    r: random.Random,
    text: str,
    entries: dict[str, Any],
    payload: dict[str, bytes],
    after: Callable[[random.Random, dict[str, Any]], None] | None,
) -> bytes:
    """A file.

    Args:
        r: What ``after`` draws from.
        text: The inner header, which is signed.
        entries: dtype and shape of every tensor, by name, in the order of their bytes.
        payload: The bytes.
        after: Changes the outer header.
    """
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    outer: dict[str, Any] = {"__metadata__": {"nodebits": f"{digest} {text}"}}
    at = 0
    for name, (dtype, shape) in entries.items():
        end = at + len(payload[name])
        outer[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    if after is not None:
        after(r, outer)
    raw = to_text(r, outer).encode(errors="surrogatepass") if after else json.dumps(outer).encode()
    return len(raw).to_bytes(8, "little") + raw + b"".join(payload[name] for name in entries)
