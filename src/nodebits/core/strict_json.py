"""JSON of unknown origin: text that means two things, or costs more than it weighs, is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nodebits.core.errors import FileFormatError
from nodebits.core.files import open_regular

# What a value of JSON takes at most, and what a text may take: a part of the promise that
# reading takes 20 bytes per byte of the file, and 64 MiB.
_VALUE_BYTES, _PER_BYTE, _SLACK = 100, 12, 32 << 20


def parse_json(data: bytes) -> Any:
    """Parses JSON of unknown origin.

    Raises:
        ValueError: If it is none, or has a key twice, NaN or infinity, or is nested too deep, or
            holds so many values that they would take far more memory than the text.
    """
    # An empty list is two bytes of text and 56 of memory.
    values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if values * _VALUE_BYTES > _PER_BYTE * len(data) + _SLACK:
        raise ValueError(f"{values} values in {len(data)} bytes of JSON")
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


# Texts, which may hold anything, and the one number that Python writes and JSON has not.
_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')
_BEYOND = "1e999"  # a number of JSON that every reader of doubles takes for infinity


def to_json(value: Any, **options: Any) -> str:
    """``value`` as JSON; infinity becomes a number beyond the range of doubles.

    Args:
        value: What :func:`json.dumps` takes.
        **options: Likewise.

    Raises:
        ValueError: If it holds a NaN.
    """
    text = json.dumps(value, **options)
    made = _INFINITY.sub(lambda m: m[0] if m[0][0] == '"' else _BEYOND, text)
    if "NaN" in made:
        json.loads(made, parse_constant=_no_number)
    return made


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        what: What it should be, for the message: ``"a study"``.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is no regular file, or :func:`parse_json` refuses its text.
    """
    with open_regular(path) as stream:
        data = stream.read()
    try:
        return parse_json(data)
    except ValueError as error:
        raise FileFormatError(f"{path} is not {what}: {str(error)[:200]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
