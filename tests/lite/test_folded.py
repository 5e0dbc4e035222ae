"""Files of version 4: contents deflated in any way, small tensors in one, and what is none."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folded_damage import DAMAGE, bomb, damaged, many
from model_files import TYPES, deflated, degrees, folded_bytes, scaled

from nodebits.lite import errors, load

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)
MODELS = sorted((Path(__file__).parent / "models").glob("*.safetensors"))
STRATEGIES = (
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
)


def stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refused(path: Path, data: bytes, match: str | None = None) -> None:
    path.write_bytes(data)
    with pytest.raises((errors.FileFormatError, errors.FileVersionError), match=match) as caught:
        load(path)
    assert len(str(caught.value)) < 1000


def folded_again(path: Path) -> bytes:
    """A file of version 3 in the form of version 4."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    outer = json.loads(data[8:end])
    header = json.loads(outer.pop("__metadata__")["nodebits"].partition(" ")[2])
    names = {kind: dtype for dtype, kind in TYPES.items()}
    tensors = {
        name: np.frombuffer(data[end:][slice(*entry["data_offsets"])], names[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in outer.items()
    }  # fmt: skip
    rest = {k: v for k, v in header.items() if k not in ("format", "version", "checksums")}
    return folded_bytes(rest.pop("plan"), tensors, **rest)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_in_either_form_gives_the_same(path: Path, tmp_path: Path) -> None:
    again = stored(tmp_path / "m", folded_again(path))
    assert again.stat().st_size < path.stat().st_size
    one, other = load(path), load(again)
    kept = np.load(path.with_suffix(".npz"))
    first = {key.partition("/")[2]: kept[key] for key in kept if key.startswith("0/")}
    expected = first.pop("result")
    assert np.array_equal(one.predict(**first), expected)
    assert np.array_equal(other.predict(**first), expected)
    assert one.plan == other.plan and one.metadata == other.metadata
    assert (one.header["version"], other.header["version"]) == (3, 4)


def test_large_tensors_have_entries_of_their_own(tmp_path: Path) -> None:
    plan, tensors = scaled()
    shift = tensors.pop("shift")
    model = load(stored(tmp_path / "m", folded_bytes(plan, tensors, behind={"shift": shift})))
    assert np.array_equal(model.predict(X), np.maximum(X * tensors["scale"] + shift, 0))
    refused(tmp_path / "m", folded_bytes(plan, tensors), "'shift'")


def test_tensors_of_every_width_lie_one_behind_another(tmp_path: Path) -> None:
    plan, tensors = scaled()
    more = {
        name: np.arange(n, dtype=np.dtype(name))
        for n, name in enumerate(("uint8", "int8", "int16", "float16", "int32", "int64", "float64"))
    }
    more["bool"], more["none"] = np.array([True]), np.zeros((0, 1 << 40), np.int32)
    model = load(stored(tmp_path / "m", folded_bytes(plan, {**more, **tensors})))
    expected = np.maximum(X * tensors["scale"] + tensors["shift"], 0)
    assert np.array_equal(model.predict(X), expected)


def test_there_may_be_no_tensors(tmp_path: Path) -> None:
    assert len(load(stored(tmp_path / "m", folded_bytes(degrees()))).inputs) == 2


def texts() -> list[str]:
    """Texts that repeat themselves near and far, or not at all."""
    r = random.Random(0)
    word = "".join(map(chr, range(35, 92)))
    noise = "".join(r.choices(word, k=70_000))
    return ["", "a", "a" * 70_000, noise, noise[:300] + "b" * 32_400 + noise[:300], word * 99]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_contents_are_inflated_as_zlib_does(strategy: int, tmp_path: Path) -> None:
    plan, tensors = scaled()
    for level in (0, 1, 9):
        for value in texts():
            metadata = {"a": value}
            text = {
                "plan": plan,
                "metadata": metadata,
                "small": [["F32", {"scale": [3], "shift": [3]}]],
            }
            made = json.dumps(text).encode()
            stream = deflated(made, level, strategy)
            data = folded_bytes(plan, tensors, text=made, stream=stream)
            assert load(stored(tmp_path / "m", data)).metadata == metadata


def test_streams_that_zlib_refuses_are_refused(tmp_path: Path) -> None:
    """And what it reads is read as it reads it."""
    plan, tensors = scaled()
    table = [["F32", {"scale": [3], "shift": [3]}]]
    found = {True: 0, False: 0}
    for number in range(600):
        r = random.Random(number)
        text = {"plan": plan, "small": table, "metadata": {"a": "".join(r.choices("abc", k=90))}}
        made = json.dumps(text).encode()
        stream = bytearray(deflated(made, 9, STRATEGIES[number % len(STRATEGIES)]))
        for _ in range(r.choice((1, 1, 3))):
            stream[r.randrange(len(stream)) if r.random() < 0.5 else r.randrange(12)] ^= (
                1 << r.randrange(8)
            )
        expected = whole(bytes(stream), len(made))
        data = folded_bytes(plan, tensors, text=made, stream=bytes(stream))
        try:
            metadata: Any = load(stored(tmp_path / "m", data)).metadata
        except (errors.FileFormatError, errors.ConfigError):
            metadata = None
        if metadata is not None:
            assert expected is not None and json.loads(expected).get("metadata", {}) == metadata
        elif expected is not None:  # zlib is content, so JSON or the plan is not
            assert not plain(expected, text)
        found[metadata is not None] += 1
    assert found[False] > 400


def whole(stream: bytes, length: int) -> bytes | None:
    """What zlib makes of a stream; None where that is no such text."""
    reader = zlib.decompressobj(-15)
    try:
        text = reader.decompress(stream, length + 1)
    except zlib.error:
        return None
    good = reader.eof and len(text) == length and not any(reader.unused_data)
    return text if good and len(reader.unused_data) < 8 else None


def plain(text: bytes, expected: dict[str, Any]) -> bool:
    """Whether a text differs from the expected one in the metadata alone."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    metadata = found.pop("metadata", None) if isinstance(found, dict) else None
    return isinstance(metadata, dict) and found == {k: expected[k] for k in ("plan", "small")}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_said(name: str, tmp_path: Path) -> None:
    refused(tmp_path / "m", damaged(name), DAMAGE[name][1])


def test_a_right_file_is_read(tmp_path: Path) -> None:
    assert load(stored(tmp_path / "m", folded_bytes(*scaled()))).inputs


def test_short_files_that_would_take_much(tmp_path: Path) -> None:
    assert load(stored(tmp_path / "m", bomb(900_000))).inputs
    refused(tmp_path / "m", bomb(2_000_000), "contents")
    refused(tmp_path / "m", many(40_000), "small tensors")


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    good = folded_bytes(*scaled())
    path, end = tmp_path / "m", 8 + int.from_bytes(good[:8], "little")
    for length in range(len(good)):
        refused(path, good[:length])
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            load(path)
        except (errors.FileFormatError, errors.FileVersionError):
            continue
        # A name of the outer header may change its case in an escape, a space its kind; not more.
        assert at < end and json.loads(changed[8:end]) == json.loads(good[8:end])


def test_contents_are_compared_where_tensors_are_not(tmp_path: Path) -> None:
    data = bytearray(folded_bytes(*scaled()))
    data[-1] ^= 1
    refused(tmp_path / "m", bytes(data), "checksum of tensor '.small'")
    assert load(tmp_path / "m", checksums=False).predict(X).shape == (4, 3)
    data[8 + int.from_bytes(data[:8], "little") + 9] ^= 1
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(errors.FileFormatError, match=r"checksum of tensor '\.contents'"):
        load(tmp_path / "m", checksums=False)
