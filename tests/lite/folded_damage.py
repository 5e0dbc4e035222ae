"""What may be wrong in a file of version 4 whose checksums are right: nobody may read it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from model_files import deflated, folded_bytes, scaled

PLAN, TENSORS = scaled()
TEXT = json.dumps({"plan": PLAN, "metadata": {}, "small": [["F32", {"scale": [3], "shift": [3]}]]})
ONE = {"stranger": np.ones(2, np.float32)}


def text(of: str | bytes) -> dict[str, Any]:
    """Changes of a file: other contents."""
    return {"text": of if isinstance(of, bytes) else of.encode()}


def table(of: Any) -> dict[str, Any]:
    """Changes of a file: another table of small tensors."""
    return {"small": of}


# Changes of a right file, and words of the error.
DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no contents": ({"contents": 0}, "contents"),
    "contents of more bytes": ({"contents": len(TEXT) + 1}, "contents"),
    "contents of fewer bytes": ({"contents": len(TEXT) - 1}, "contents"),
    "contents of a length below nothing": ({"contents": -1}, "contents|whole number"),
    "contents of half a byte": ({"contents": 1.5}, "contents|whole number"),
    "contents of a text's length": ({"contents": "7"}, "contents|whole number"),
    "contents beyond the file": ({"contents": 1 << 21}, "contents"),
    "contents beyond all memory": ({"contents": 10**17}, "contents"),
    "contents that end early": ({"stream": deflated(TEXT.encode())[:-8]}, "contents"),
    "contents that are none": ({"stream": b"\7" * 64}, "contents"),
    "no stream": ({"stream": b""}, "contents"),
    "bytes behind the contents": ({"stream": deflated(TEXT.encode()) + b"\1"}, "behind its end"),
    "zeros behind the contents": ({"stream": deflated(TEXT.encode()) + bytes(8)}, "behind its end"),
    "contents that are a list": (text("[1]"), "contents"),
    "contents that are no JSON": (text(TEXT[:-1]), "contents"),
    "contents and more": (text(TEXT + "{}"), "contents"),
    "contents that are not UTF-8": (text(TEXT.encode() + b"\xff"), "contents"),
    "contents with a name twice": (text(TEXT[:-1] + ', "plan": {}}'), "twice"),
    "contents that are nested too deep": (text('{"a": ' + "[" * 100_000), "contents"),
    "contents that say the version": (text(TEXT[:-1] + ', "version": 4}'), "version"),
    "contents that say checksums": (text(TEXT[:-1] + ', "checksums": {}}'), "checksums"),
    "no table": ({"small": None}, "small"),
    "a table that is an object": (table({}), "small"),
    "a group that is none": (table([1]), "small"),
    "a group of a type alone": (table([["F32"]]), "small"),
    "a group of three": (table([["F32", {"scale": [3], "shift": [3]}, 1]]), "small"),
    "a group without tensors": (table([["F32", []]]), "small"),
    "a type that is none": (table([["F31", {"scale": [3], "shift": [3]}]]), "F31"),
    "a type that is a number": (table([[4, {"scale": [3], "shift": [3]}]]), "small"),
    "another type": (table([["F64", {"scale": [3], "shift": [3]}]]), "'shift'.* ends"),
    "a type of fewer bytes": (table([["U8", {"scale": [3], "shift": [3]}]]), "of 6 bytes|take 6"),
    "a shape that is none": (table([["F32", {"scale": 3, "shift": [3]}]]), "small"),
    "a length below nothing": (table([["F32", {"scale": [-3], "shift": [3]}]]), "small"),
    "a length of half": (table([["F32", {"scale": [1.5], "shift": [3]}]]), "small"),
    "a length beyond the bytes": (table([["F32", {"scale": [3], "shift": [4]}]]), "'shift'.* ends"),
    "a length beyond all memory": (table([["F32", {"scale": [1 << 62, 4]}]]), "small"),
    "lengths beyond all memory": (table([["F32", {"scale": [1 << 48] * 3}]]), "'scale'"),
    "nine axes": (table([["F32", {"scale": [1] * 9, "shift": [3]}]]), "axes"),
    "no tensor for the bytes": (table([]), "of 0 bytes|take 0"),
    "a tensor too few": (table([["F32", {"scale": [3]}]]), "of 12 bytes|take 12"),
    "a name in two types": (
        table([["F32", {"scale": [3]}], ["I32", {"scale": [3]}]]),
        "two tensors",
    ),
    "a name that the file has": (table([["F32", {".small": [3], "shift": [3]}]]), "two tensors"),
    "a name of a large tensor": ({"behind": {"scale": np.ones(3, np.float32)}}, "two tensors"),
    "too many bytes": ({"held": bytes(32)}, "of 24 bytes|take 24"),
    "a byte that fills up": ({"held": bytes(24) + b"\0\1"}, "behind its end|take 24"),
    "too few bytes": ({"held": bytes(20)}, "'shift'.* ends"),
    "no bytes": ({"held": b""}, "ends"),
    "another first tensor": ({"first": ONE}, "first tensors are"),
    "another version": ({"version": 5}, "version 5"),
    "another kind": ({"format": "nodebits features"}, "version 4"),
}


def damaged(name: str) -> bytes:
    """The file."""
    return folded_bytes(PLAN, TENSORS, **DAMAGE[name][0])


def bomb(count: int) -> bytes:
    """Contents of so many bytes that deflate to a thousandth."""
    return folded_bytes(PLAN, TENSORS, metadata={"a": " " * count})


def many(count: int) -> bytes:
    """A table of so many tensors without a value."""
    return folded_bytes(PLAN, {}, small=[["U8", {f"{i:x}": [0] for i in range(count)}]])
