"""JSON that means two things, or costs more than it weighs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nodebits.core.errors import FileFormatError
from nodebits.core.strict_json import parse_json, read_json, to_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b"NaN", "no JSON"),
        (b"[-Infinity]", "no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"[]," * 3_000_000, "values in"),
        (b"9" * 5_000, "digits"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
    ],
)
def test_refused(text: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(FileFormatError, match=r"x\.json is not a study"):
        read_json(tmp_path / "x.json", "a study")


@pytest.mark.timeout(20)
def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FileFormatError, match="a file is expected"):
            read_json(path, "a study")


def test_plain_values_are_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}


@pytest.mark.parametrize("value", [float("inf"), [-float("inf"), '-Infinity, "\\'], {"a": 1e308}])
def test_infinity_is_a_number_of_json(value: Any) -> None:
    assert parse_json(to_json(value).encode()) == value


def test_nan_is_none() -> None:
    assert parse_json(to_json(["NaN"]).encode()) == ["NaN"]
    with pytest.raises(ValueError, match="NaN is no JSON"):
        to_json([float("nan")])
