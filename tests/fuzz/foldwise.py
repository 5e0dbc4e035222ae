"""Files of models of version 4: taken apart, put together, and wrong in ways of their own."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Callable
from typing import Any

from fuzz.bytewise import mutate_bytes
from fuzz.form import SIZES, checksum, file_of
from fuzz.jsonwise import NUMBERS, mutate_tree, to_text

CONTENTS, SMALL = ".contents", ".small"
_SIGNED = ("format", "version", "checksums", "contents", "small")
Table = dict[str, tuple[str, list[int], list[int]]]


def unfolded(
    table: Table, payload: dict[str, bytes]
) -> tuple[dict[str, Any], Table, dict[str, bytes]]:
    """Header, table and bytes of the same file in the form of version 3."""
    table, payload = dict(table), dict(payload)
    contents = json.loads(zlib.decompressobj(-15).decompress(payload.pop(CONTENTS)))
    held, at = payload.pop(SMALL), 0
    del table[CONTENTS], table[SMALL]
    for dtype, group in contents.pop("small"):
        for name, shape in group.items():
            end = at + math.prod(shape) * SIZES[dtype][0]
            table[name], payload[name] = (dtype, shape, [at, end]), held[at:end]
            at = end
    sums = {
        name: checksum(dtype, shape, payload[name]) for name, (dtype, shape, _) in table.items()
    }
    return {"format": "nodebits", "version": 3, "checksums": sums, **contents}, table, payload


def folded_file(header: dict[str, Any], table: Table, payload: dict[str, bytes]) -> bytes:
    """The same in the form of version 4."""
    entries = {name: [dtype, shape] for name, (dtype, shape, _) in table.items()}
    small, held = _small(entries, payload)
    contents = {k: v for k, v in header.items() if k not in _SIGNED}
    text = json.dumps({**contents, "small": small}).encode()
    return _signed(random.Random(0), text, len(text), _deflated(text), held, {}, None)


def folded(
    r: random.Random,
    header: dict[str, Any],
    entries: dict[str, Any],
    payload: dict[str, bytes],
    spoiled: bool,
    after: Callable[[random.Random, dict[str, Any]], None] | None,
) -> bytes:
    """A changed file in the form of version 4, sometimes with one more change of its own."""
    header = {k: v for k, v in header.items() if k not in _SIGNED}
    # Some have a tensor with an entry of its own.
    apart = r.choice(list(entries)) if entries and r.random() < 0.3 else None
    table, held = _small({n: e for n, e in entries.items() if n != apart}, payload)
    kind = r.random()
    if kind < 0.1:
        mutate_tree(r, table)
    if kind < 0.13:
        held = mutate_bytes(r, held)
    text = to_text(r, {**header, "small": table}).encode(errors="surrogatepass")
    if spoiled:
        text = mutate_bytes(r, text)
    stream, length = _deflated(text, r.choice((0, 1, 9))), len(text)
    if kind > 0.95:
        stream = mutate_bytes(r, stream)
    elif kind > 0.92:
        length = r.choice(NUMBERS)
    more = {} if apart is None else {apart: (*entries[apart], payload[apart])}
    return _signed(r, text, length, stream, held, more, after)


def _small(entries: dict[str, Any], payload: dict[str, bytes]) -> tuple[list[Any], bytes]:
    """The table of small tensors, and their bytes."""
    table: list[Any] = []
    for name, (dtype, shape) in entries.items():
        if not table or table[-1][0] != dtype:
            table.append([dtype, {}])
        table[-1][1][name] = shape
    return table, b"".join(payload[name] for name in entries)


def _deflated(text: bytes, level: int = 9) -> bytes:
    press = zlib.compressobj(level, zlib.DEFLATED, -15)
    return press.compress(text) + press.flush()


def _signed(
    r: random.Random,
    text: bytes,
    length: Any,
    stream: bytes,
    held: bytes,
    more: dict[str, Any],
    after: Callable[[random.Random, dict[str, Any]], None] | None,
) -> bytes:
    """A file of these contents and small tensors, filled up, with their checksums."""
    stream, held = (data + bytes(-len(data) % 8) for data in (stream, held))
    folds = {CONTENTS: ("U8", [len(stream)], stream), SMALL: ("U8", [len(held)], held), **more}
    sums = {name: checksum(*one) for name, one in folds.items()}
    signed = {"format": "nodebits", "version": 4, "contents": length, "checksums": sums}
    entries = {name: list(one[:2]) for name, one in folds.items()}
    return file_of(r, json.dumps(signed), entries, {n: one[2] for n, one in folds.items()}, after)
