"""Model files written by hand, with the standard library and numpy: docs/format.md in 100 lines."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def checksum(array: np.ndarray) -> int:
    """CRC-32 over dtype, shape and bytes, as a model file has it."""
    head = f"torch.{array.dtype}{list(array.shape)}".encode()
    return zlib.crc32(array.tobytes(), zlib.crc32(head))


def model_bytes(
    plan: Any, tensors: dict[str, np.ndarray] | None = None, padding: int = 0, **changes: Any
) -> bytes:
    """A model file of version 3.

    Args:
        plan: What stands under ``plan``.
        tensors: By name.
        padding: Spaces after the outer header: where the tensors begin.
        **changes: Entries of the inner header that differ; None leaves one out.
    """
    tensors = tensors or {}
    table: dict[str, Any] = {}
    at = 0
    for name, array in tensors.items():
        place = [at, at + array.nbytes]
        at = place[1]
        table[name] = {
            "dtype": TYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": place,
        }
    header = {
        "format": "nodebits",
        "version": 3,
        "plan": plan,
        "metadata": {},
        "checksums": {name: checksum(array) for name, array in tensors.items()},
        **changes,
    }
    return signed({k: v for k, v in header.items() if v is not None}, table, padding) + b"".join(
        array.tobytes() for array in tensors.values()
    )


def signed(header: Any, table: dict[str, Any], padding: int = 0) -> bytes:
    """Both headers, with the digest that belongs to the inner one."""
    text = header if isinstance(header, str) else json.dumps(header, sort_keys=True)
    value = f"{hashlib.sha256(text.encode()).hexdigest()} {text}"
    outer = json.dumps({"__metadata__": {"nodebits": value}, **table}).encode() + b" " * padding
    return struct.pack("<Q", len(outer)) + outer


def deflated(text: bytes, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """A raw stream, as contents are."""
    press = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return press.compress(text) + press.flush()


def table_of(tensors: dict[str, np.ndarray]) -> tuple[list[Any], bytes]:
    """The table of small tensors, widest types first, and their bytes."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in sorted(tensors.items(), key=lambda one: -one[1].itemsize):
        groups.setdefault(TYPES[str(array.dtype)], {})[name] = array
    table = [[t, {n: list(a.shape) for n, a in group.items()}] for t, group in groups.items()]
    return table, b"".join(a.tobytes() for group in groups.values() for a in group.values())


def folded_bytes(plan: Any, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> bytes:
    """A model file of version 4, all of its tensors small ones.

    Args:
        plan: What stands under ``plan``.
        tensors: By name.
        **changes: What differs from a right file: ``small``, the table; ``held``, the bytes of the
            tensors; ``text``, the contents; ``stream``, these deflated; ``first``, tensors before
            all others; ``behind``, tensors with entries of their own. Others are entries of the
            contents, or of the signed header where they belong there; None leaves one out.
    """
    table, held = table_of(tensors or {})
    held = changes.pop("held", held + bytes(-len(held) % 8))
    first, behind = changes.pop("first", {}), changes.pop("behind", {})
    signed = {"version": changes.pop("version", 4), "format": changes.pop("format", "nodebits")}
    text, stream, length = (changes.pop(key, None) for key in ("text", "stream", "contents"))
    contents = {"plan": plan, "metadata": {}, "small": table, **changes}
    if text is None:
        text = json.dumps({k: v for k, v in contents.items() if v is not None}).encode()
    if stream is None:
        stream = deflated(text)
        stream += bytes(-len(stream) % 8)
    folds = {".contents": np.frombuffer(stream, np.uint8), ".small": np.frombuffer(held, np.uint8)}
    length = len(text) if length is None else length
    return model_bytes(None, {**first, **folds, **behind}, metadata=None, contents=length, **signed)


def write_model(path: Path, *args: Any, **kwargs: Any) -> Path:
    """:func:`model_bytes` in a file."""
    path.write_bytes(model_bytes(*args, **kwargs))
    return path


def scaled(width: int = 3) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Plan and tensors of ``relu(x * scale + shift)``: one matrix in, one out."""
    plan = {
        "version": 1,
        "inputs": [{"name": "x", "value": 0, "dtype": "float32", "shape": [None, width]}],
        "constants": {"1": "scale", "2": "shift"},
        "steps": [
            {"op": "mul", "args": ["v0", "v1"], "outs": [3]},
            {"op": "add", "args": ["v3", "v2"], "outs": [4]},
            {"op": "relu", "args": ["v4"], "outs": [5]},
        ],
        "outputs": {"value": 5},
    }
    scale = np.linspace(0.5, 2.0, width, dtype=np.float32)
    return plan, {"scale": scale, "shift": np.linspace(-1, 1, width, dtype=np.float32)}


def graph_input(value: int, rows: tuple[int, int, int], name: str = "edge_index") -> dict[str, Any]:
    """The input of an edge index, and the values of its rows."""
    graph = dict(zip(("indptr", "indices", "perm"), rows, strict=True))
    return {"name": name, "value": value, "dtype": "int64", "shape": [2, None], "graph": graph}


def degrees() -> dict[str, Any]:
    """The plan of ``(degree(edge_index) + x, {"targets": ...})``: two outputs, one of the graph."""
    return {
        "version": 1,
        "inputs": [
            {"name": "x", "value": 0, "dtype": "float32", "shape": [None]},
            graph_input(1, (2, 3, 4)),
        ],
        "constants": {},
        "steps": [
            {"op": "csr", "args": ["v1", "d0.0", "d0.0"], "outs": [2, 3, 4]},
            {"op": "degree", "args": ["v2"], "outs": [5]},
            {"op": "add", "args": ["v5", "v0"], "outs": [6]},
            {"op": "targets", "args": ["v2"], "outs": [7]},
        ],
        "outputs": {"tuple": [{"value": 6}, {"dict": {"targets": {"value": 7}}}]},
    }
