"""Files: what is right is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from model_files import degrees, model_bytes, scaled, signed, write_model

from nodebits.lite import errors, load

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)


def refused(path: Path, data: bytes, error: type[Exception], match: str | None = None) -> None:
    path.write_bytes(data)
    with pytest.raises(error, match=match):
        load(path)


def test_what_a_file_says(tmp_path: Path) -> None:
    plan, tensors = scaled()
    model = load(write_model(tmp_path / "m", plan, tensors, metadata={"accuracy": 0.5, "π": "ü"}))
    (x,) = model.inputs
    assert (x.name, x.dtype, x.shape, x.is_graph) == ("x", "float32", (None, 3), False)
    assert model.plan == plan
    assert model.metadata == {"accuracy": 0.5, "π": "ü"}
    assert model.header["version"] == 3
    expected = np.maximum(X * tensors["scale"] + tensors["shift"], 0)
    assert np.array_equal(model.predict(X), expected)


@pytest.mark.parametrize("padding", range(8))
def test_tensors_may_begin_anywhere(tmp_path: Path, padding: int) -> None:
    plan, tensors = scaled()
    model = load(write_model(tmp_path / "m", plan, tensors, padding))
    assert np.array_equal(model.predict(X), np.maximum(X * tensors["scale"] + tensors["shift"], 0))


@pytest.mark.parametrize("as_path", [str, Path, os.fsencode])
def test_paths(tmp_path: Path, as_path: type) -> None:
    path = write_model(tmp_path / "mödel", *scaled())
    assert load(as_path(str(path))).inputs
    with pytest.raises(ValueError, match="null"):
        load(f"{path}\0")


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole = model_bytes(*scaled())
    path = tmp_path / "m"
    for length in range(len(whole)):
        refused(path, whole[:length], errors.FileFormatError)
    refused(path, whole + b"\0", errors.FileFormatError, "truncated or damaged")
    header = len(whole) - 24
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            load(path)
        except (errors.FileFormatError, errors.FileVersionError):
            continue
        # A name of the outer header may change its case in an escape, a space its kind; not more.
        assert at < header and json.loads(damaged[8:header]) == json.loads(whole[8:header])


def test_checksums_can_be_left_out(tmp_path: Path) -> None:
    data = bytearray(model_bytes(*scaled()))
    data[-1] ^= 1
    path = tmp_path / "m"
    refused(path, bytes(data), errors.FileFormatError, "checksum of tensor 'shift'")
    assert load(path, checksums=False).predict(X).shape == (4, 3)
    data[60] ^= 1  # the header's digest is not left out
    path.write_bytes(data)
    with pytest.raises(errors.FileFormatError):
        load(path, checksums=False)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        load(write_model(tmp_path / "m", *scaled()) / "below")
    with pytest.raises(errors.FileFormatError, match="folder"):
        load(tmp_path)
    refused(tmp_path / "empty", b"", errors.FileFormatError, "0 bytes")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(errors.FileFormatError, match="regular"):
            load(tmp_path / "pipe")
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        path = write_model(tmp_path / "m", *scaled())
        path.chmod(0)
        with pytest.raises(OSError, match=r"[Pp]ermission"):
            load(path)


@pytest.mark.parametrize("version", [5, 0, -1, "2", True, 2.0, None, 10**30])
def test_other_versions(tmp_path: Path, version: object) -> None:
    # A newer file may have anything under any other name.
    data = model_bytes(*scaled(), version=version, checksums=[])
    refused(tmp_path / "m", data, errors.FileVersionError, "reads 1 to 4")


def test_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for kind in ("nodebits features", "nodebits checkpoint", "", None):
        refused(path, model_bytes(*scaled(), format=kind), errors.FileFormatError, "kind")
    foreign = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    refused(path, len(foreign).to_bytes(8, "little") + foreign, errors.FileFormatError)
    refused(path, b"PK\3\4" + bytes(200), errors.FileFormatError)


def test_files_without_a_plan(tmp_path: Path) -> None:
    plan, tensors = scaled()
    del plan["steps"]
    refused(tmp_path / "m", model_bytes(plan, tensors), errors.FileFormatError, "steps")
    refused(tmp_path / "m", model_bytes(None, tensors), errors.ConfigError, "no plan.*save")
    text = json.dumps({"format": "nodebits", "version": 3, "checksums": {}, "plan": None})
    refused(tmp_path / "m", signed(text, {}), errors.ConfigError, "no plan")


def test_newer_plans(tmp_path: Path) -> None:
    plan, tensors = scaled()
    refused(
        tmp_path / "m", model_bytes({**plan, "version": 2}, tensors), errors.FileFormatError, "2"
    )
    plan["steps"][0]["op"] = "conjure"
    refused(tmp_path / "m", model_bytes(plan, tensors), errors.FileFormatError, "conjure")


def test_steps_of_python_are_refused_with_their_place(tmp_path: Path) -> None:
    plan, tensors = scaled()
    plan["steps"][0] = {"op": "module", "args": ["=convs.0", "v0"], "outs": [3]}
    refused(tmp_path / "m", model_bytes(plan, tensors), errors.PlanRefused, r"convs\.0")


def test_constants_must_be_there_and_have_a_type_that_steps_take(tmp_path: Path) -> None:
    plan, tensors = scaled()
    path = tmp_path / "m"
    refused(path, model_bytes(plan, {"scale": tensors["scale"]}), errors.FileFormatError, "'shift'")
    half = {**tensors, "shift": tensors["shift"].astype(np.float16)}
    refused(path, model_bytes(plan, half), errors.FileFormatError, "F16")


def test_bools_are_0_or_1(tmp_path: Path) -> None:
    plan, tensors = scaled()
    plan["constants"]["9"] = "mask"
    tensors["mask"] = np.array([True, False])
    data = model_bytes(plan, tensors)
    assert load(write_model(tmp_path / "m", plan, tensors)).inputs
    text = json.loads(
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][
            "nodebits"
        ].partition(" ")[2]
    )
    assert text["checksums"]["mask"]
    (tmp_path / "m").write_bytes(data[:-2] + b"\2\0")
    with pytest.raises(errors.FileFormatError, match="neither 0 nor 1"):
        load(tmp_path / "m", checksums=False)


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


@pytest.mark.parametrize(
    "table",
    [
        {"a": entry(dtype="F31")},
        {"a": entry(dtype=1)},
        {"a": entry(shape=[2])},
        {"a": entry(shape=[-1])},
        {"a": entry(shape=[1.0])},
        {"a": entry(shape=1)},
        {"a": entry(shape=[1] * 9)},
        {"a": entry(shape=[1 << 62, 4])},
        {"a": entry(shape=[1 << 48, 1 << 48, 1 << 48])},
        {"a": entry(data_offsets=[4, 8])},
        {"a": entry(data_offsets=[4, 0])},
        {"a": entry(data_offsets=[0])},
        {"a": entry(data_offsets=[0, 4, 8])},
        {"a": entry(data_offsets=[0, 1 << 63])},
        {"a": entry(other=1)},
        {"a": {}},
        {"a": []},
        {"a": entry(), "b": entry()},
        {"b": entry()},
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, table: dict[str, object]) -> None:
    plan, _ = scaled()
    plan.update(constants={}, steps=[], outputs={"value": 0})
    header = {"format": "nodebits", "version": 3, "plan": plan, "checksums": {"a": 1}}
    refused(tmp_path / "m", signed(header, table) + bytes(4), errors.FileFormatError)


@pytest.mark.parametrize(
    "outer",
    [
        b"",
        b"[]",
        b"{",
        b'{"__metadata__": {}}',
        b'{"__metadata__": 1}',
        b'{"__metadata__": {"nodebits": "x"}, "__metadata__": {"nodebits": "x"}}',
        b'{"__metadata__": {"nodebits": "VALUE"}} x',
        b'{"__metadata__": {"nodebits": "VALUE", "other": "x"}}',
        b'{"__metadata__": {"nodebits": "VALUE\\ud800"}}',
        b'{"__metadata__": {"nodebits": "VALUE"}, "\xff": 1}',
        b'{"__metadata__": {"nodebits": "VALUE\x01"}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_headers_that_are_none(tmp_path: Path, outer: bytes) -> None:
    plan, _ = scaled()
    plan.update(constants={}, steps=[], outputs={"value": 0})
    text = json.dumps({"format": "nodebits", "version": 3, "plan": plan, "checksums": {}})
    value = json.dumps(f"{hashlib.sha256(text.encode()).hexdigest()} {text}")[1:-1].encode()
    good = b'{"__metadata__": {"nodebits": "VALUE"}}'.replace(b"VALUE", value)
    path = tmp_path / "m"
    path.write_bytes(len(good).to_bytes(8, "little") + good)
    assert load(path).inputs
    bad = outer.replace(b"VALUE", value)
    refused(path, len(bad).to_bytes(8, "little") + bad, errors.FileFormatError)


def test_long_names_and_control_characters_stay_out_of_messages(tmp_path: Path) -> None:
    plan, _ = scaled()
    name = "\x1b[31m" + "a" * 100_000
    data = signed({"format": "nodebits", "version": 3, "plan": plan, "checksums": {}}, {name: {}})
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(errors.FileFormatError) as caught:
        load(path)
    assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value)


def test_digests_and_checksums_are_those_of_python(tmp_path: Path) -> None:
    """Lengths around the blocks of both."""
    plan, _ = scaled()
    plan.update(constants={}, steps=[], outputs={"value": 0})
    for length in (*range(70), 119, 120, 128, 1000):
        tensors = {"a": np.arange(length, dtype=np.uint8)}
        assert load(write_model(tmp_path / "m", plan, tensors, metadata={"a": "x" * length})).inputs


def test_a_file_may_be_replaced_while_its_model_is_in_use(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", *scaled())
    model = load(path)
    before = model.predict(X)
    other = write_model(tmp_path / "other", degrees())
    os.replace(other, path)
    assert np.array_equal(model.predict(X), before)


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_models_give_everything_back(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", *scaled())

    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(path))

    models = [load(path) for _ in range(5)]
    assert maps() == 5
    for model in models:
        model.predict(X)
    del model, models
    assert maps() == 0
