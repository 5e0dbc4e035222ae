"""Mutations of our files that know their form: the checksums are right again afterwards."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

from fuzz.bytewise import mutate_bytes
from fuzz.foldwise import folded, folded_file, unfolded
from fuzz.form import SIZES, checksum, file_of
from fuzz.jsonwise import NUMBERS, mutate_tree, random_value, to_text

_FLOATS = tuple(
    struct.pack("<f", value)
    for value in (
        math.nan,
        math.inf,
        -math.inf,
        0.0,
        -0.0,
        1e-45,
        1e-38,
        -1.0,
        3e38,
        1e30,
        0.5,
        255,
    )
)
_INTEGERS = (0, 1, -1, 2, 5, 8, 9, 12, 40, 255, 65535, 2**31 - 1, -(2**31), 2**40, 2**63 - 1)


class Parts:
    """A file taken apart: its header, the table of its tensors, and their bytes.

    Attributes:
        header: The JSON that the digest is of.
        table: dtype and shape of every tensor, by name.
        payload: Bytes of every tensor.
        folds: Whether such a file may have the form of version 4, in which half of the mutated ones
            are written.
    """

    def __init__(self, data: bytes) -> None:
        length = int.from_bytes(data[:8], "little")
        outer = json.loads(data[8 : 8 + length])
        self.text: str = outer.pop("__metadata__")["nodebits"].partition(" ")[2]
        self.header: dict[str, Any] = json.loads(self.text)
        self.table = {n: (e["dtype"], e["shape"], e["data_offsets"]) for n, e in outer.items()}
        self.payload = {
            name: data[8 + length + begin : 8 + length + end]
            for name, (_, _, (begin, end)) in self.table.items()
        }
        if "contents" in self.header:
            self.header, self.table, self.payload = unfolded(self.table, self.payload)
            self.text = json.dumps(self.header)
        self.folds = self.header["format"] == "nodebits" and self.header["version"] > 1

    def mutated(self, r: random.Random) -> bytes:
        """The file with one to three changes, which its checksums mostly hide."""
        header: dict[str, Any] = json.loads(self.text)
        entries: dict[str, Any] = {n: [d, list(s)] for n, (d, s, _) in self.table.items()}
        payload = dict(self.payload)
        text, after = None, None
        for _ in range(r.choice((1, 1, 1, 2, 3))):
            kind = r.random()
            if kind < 0.5 or not payload:
                inner = [v for v in header.values() if isinstance(v, dict | list) and v]
                mutate_tree(r, r.choice(inner) if inner and r.random() < 0.9 else header)
            elif kind < 0.62:
                text = True
            elif kind < 0.9:
                r.choice(TENSORS)(r, entries, payload)
            else:
                after = r.choice(TABLES)
        checksums = header.get("checksums")
        if isinstance(checksums, dict) and r.random() < 0.97:
            for name in entries.keys() - checksums.keys():
                checksums[name] = 0
            for name in checksums.keys() - entries.keys():
                del checksums[name]
            for name, (dtype, shape) in entries.items():
                checksums[name] = checksum(dtype, shape, payload[name])
        if self.folds and r.random() < 0.5:
            return folded(r, header, entries, payload, bool(text), after)
        made = to_text(r, header)
        if text:
            made = mutate_bytes(r, made.encode(errors="surrogatepass")).decode("latin-1")
        return file_of(r, made, entries, payload, after)


def built(parts: Parts) -> bytes:
    """The file of a changed header, its digest right again."""
    entries = {name: [dtype, shape] for name, (dtype, shape, _) in parts.table.items()}
    return file_of(random.Random(0), json.dumps(parts.header), entries, parts.payload, None)


def built_folded(parts: Parts) -> bytes:
    """The same in the form of version 4."""
    return folded_file(parts.header, parts.table, parts.payload)


def _some(r: random.Random, entries: dict[str, Any]) -> str:
    return r.choice(list(entries))


def _value(r: random.Random, dtype: Any) -> bytes:
    """An element of this type that a tensor should not have."""
    size = SIZES.get(str(dtype), (1, ""))[0]
    if dtype == "F32":
        return r.choice(_FLOATS)
    if dtype in ("U8", "BOOL"):
        return bytes([r.choice((0, 1, 2, 7, 8, 9, 127, 128, 255, r.randrange(256)))])
    return (r.choice(_INTEGERS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _set_values(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    name = _some(r, entries)
    value = _value(r, entries[name][0])
    count = len(payload[name]) // len(value)
    if not count:
        return
    if r.random() < 0.25:
        payload[name] = value * count + payload[name][count * len(value) :]
        return
    made = bytearray(payload[name])
    for _ in range(r.choice((1, 1, 2, 5))):
        at = r.randrange(count) * len(value)
        made[at : at + len(value)] = value
    payload[name] = bytes(made)


def _shuffle(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    """The values of a tensor in another order, or those of another one of its size."""
    name = _some(r, entries)
    same = [n for n in payload if len(payload[n]) == len(payload[name])]
    if r.random() < 0.5 and len(same) > 1:
        payload[name] = payload[r.choice(same)]
        return
    size = SIZES.get(str(entries[name][0]), (1, ""))[0]
    data = payload[name]
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    if r.random() < 0.5:
        parts.reverse()
    else:
        r.shuffle(parts)
    payload[name] = b"".join(parts)


def _resize(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    """Another shape, with bytes that fill it."""
    name = _some(r, entries)
    dtype, shape = entries[name]
    if not isinstance(shape, list) or not shape or dtype not in SIZES:
        return
    at = r.randrange(len(shape))
    if not isinstance(shape[at], int):
        return
    shape[at] = r.choice((0, 1, max(shape[at] - 1, 0), shape[at] + 1, shape[at] * 2, 9))
    if r.random() < 0.1:
        shape.append(1)
    size = math.prod(s for s in shape if isinstance(s, int)) * SIZES[dtype][0]
    if size <= 1 << 16:
        payload[name] = (payload[name] * (size // max(len(payload[name]), 1) + 1))[:size]
        payload[name] += bytes(size - len(payload[name]))


def _retype(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    """Another type of as many elements, or of the same bytes."""
    name = _some(r, entries)
    old = SIZES.get(str(entries[name][0]), (1, ""))[0]
    dtype = r.choice(list(SIZES))
    entries[name][0] = dtype
    if SIZES[dtype][0] != old and len(payload[name]) < 1 << 16:
        count = len(payload[name]) // old * SIZES[dtype][0]
        payload[name] = (payload[name] * 8)[:count]


def _drop(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    name = _some(r, entries)
    if len(entries) > 1:
        del entries[name], payload[name]


def _rename(r: random.Random, entries: dict[str, Any], payload: dict[str, bytes]) -> None:
    name = _some(r, entries)
    to = r.choice((name + "x", name.replace(".", "/", 1), "", "scale", _some(r, entries)))
    if to not in entries:
        entries[to], payload[to] = entries.pop(name), payload.pop(name)


TENSORS = (
    _set_values,
    _set_values,
    _set_values,
    _set_values,
    _shuffle,
    _resize,
    _retype,
    _drop,
    _rename,
)


def _entry(r: random.Random, outer: dict[str, Any]) -> None:
    """A field of the table that its bytes do not bear out."""
    name = r.choice(list(outer))
    if not isinstance(outer[name], dict) or name == "__metadata__":
        outer[name] = random_value(r) if r.random() < 0.5 else {**outer[name], "x": "y"}
        return
    key = r.choice(("dtype", "shape", "data_offsets"))
    value = outer[name][key]
    if isinstance(value, list) and value and r.random() < 0.7:
        value[r.randrange(len(value))] = r.choice(NUMBERS)
    elif key == "dtype" and r.random() < 0.7:
        outer[name][key] = r.choice((*SIZES, "F4", "F8_E4M3", "U32", "U64", "C64", ""))
    else:
        outer[name][key] = random_value(r)


def _swap_entries(r: random.Random, outer: dict[str, Any]) -> None:
    one, other = r.choice(list(outer)), r.choice(list(outer))
    outer[one], outer[other] = outer[other], outer[one]


TABLES = (_entry, _entry, _entry, mutate_tree, _swap_entries)
