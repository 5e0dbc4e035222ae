"""Files that are correct to the last checksum and still not ours: refused before any allocation."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.files import write_atomically
from nodebits.methods import make_config, prepare
from nodebits.runtime import container, convert, load
from packed_models import make_case

DATA = Path(__file__).parent / "data"
Header = dict[str, Any]
Tensors = dict[str, Tensor]


def parts(path: Path, name: str = "gcn", method: str = "uniform") -> tuple[Header, Tensors]:
    """Header and tensors of a named model's file."""
    make_case(name, method).packed.save(path)
    header, tensors = container.read(path, container.MODEL)
    for key in ("format", "version", "checksums"):
        header.pop(key)
    return header, tensors


def site(header: Header) -> Header:
    """A site's config."""
    found: Header = header["layers"]["convs.0.lin"]["sites"]["input"]
    return found


def layer(header: Header) -> Header:
    """A layer's config."""
    found: Header = header["layers"]["convs.0"]["config"]
    return found


HEADERS: dict[str, Callable[[Header], object]] = {
    "model.hidden_channels": lambda h: h["model"].update(hidden_channels=10**9),
    "model.num_layers": lambda h: h["model"].update(num_layers=5_000),
    "num_layers": lambda h: h["model"].update(num_layers=10**12),
    "steps": lambda h: h["model"].update(steps=10**9),
    "need torch.float32 [1000000000]": lambda h: h["layers"]["convs.0"]["sites"]["message"].update(
        num_scales=10**9
    ),
    "config.in_channels": lambda h: layer(h).update(in_channels=True),
    "config.out_channels": lambda h: layer(h).update(out_channels=2**40),
    "config.bias": lambda h: layer(h).update(bias=None),
    "unknown field 'more'": lambda h: layer(h).update(more=1),
    "lacks the field": lambda h: layer(h).pop("bias"),
    "input.bits": lambda h: site(h).update(bits=9),
    "input.kind": lambda h: site(h).update(kind="no such kind"),
    "no site 'output'": lambda h: h["layers"]["convs.0.lin"]["sites"].pop("output"),
    "no name of a site": lambda h: h["layers"]["convs.0.lin"]["sites"].update(forward=site(h)),
    "shape": lambda h: h["layers"]["convs.0.lin"]["sites"]["quantized_weight"].update(shape=[16]),
    "header.layers": lambda h: h.update(layers=[]),
    "layers.convs.0": lambda h: h["layers"].update({"convs.0": None}),
    "header.norms": lambda h: h.update(norms={}),
    "layers.convs.0.class": lambda h: h["layers"]["convs.0"].update({"class": "QuantGCNConvv"}),
    "unknown model": lambda h: h["model"].update(name="gcm"),
    "header.module": lambda h: h.update(module=None),
    "header.metadata": lambda h: h.update(metadata=[1]),
}


@pytest.mark.parametrize("field", HEADERS)
def test_fields_of_a_header(field: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    header, tensors = parts(path)
    HEADERS[field](header)
    container.write(path, container.MODEL, header, tensors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((FileFormatError, ConfigError)) as caught:
        load(path)
    if not field.startswith("model.h"):  # the widths of the layers below differ as well
        assert field.removeprefix("model.") in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # in KiB


@pytest.mark.parametrize("value", (torch.nan, torch.inf, 0.0, -1.0))
def test_scales_that_are_none(value: float, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for name in ("convs.0.message.scale", "convs.1.lin.quantized_weight.scale"):
        header, tensors = parts(path)
        tensors[name][0] = value
        container.write(path, container.MODEL, header, tensors)
        with pytest.raises(FileFormatError, match=rf"{name.rpartition('.')[0]}.*scale\[0\] is"):
            load(path)


def test_tensors_of_another_type_or_shape(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    name = "convs.0.message.scale"
    for change in (lambda t: t.double(), lambda t: t[:-1], lambda t: t.view(1, -1)):
        header, tensors = parts(path)
        tensors[name] = change(tensors[name]).contiguous()
        container.write(path, container.MODEL, header, tensors)
        with pytest.raises(FileFormatError, match=f"{name}.*but the layers need"):
            load(path)
    header, tensors = parts(path)
    weight = "convs.0.lin.quantized_weight.col_sum"
    tensors[weight] = tensors[weight] + 1
    container.write(path, container.MODEL, header, tensors)
    with pytest.raises(FileFormatError, match="col_sum"):
        load(path)


def raw(outer: bytes, payload: bytes = b"") -> bytes:
    return len(outer).to_bytes(8, "little") + outer + payload


BYTES = {
    "deep": raw(b"[" * 100_000),
    "many values": raw(b"{" + b"[]," * 3_000_000),
    "long integer": raw(b'{"a": ' + b"9" * 10_000 + b"}"),
    "twice": raw(b'{"__metadata__": {}, "__metadata__": {}}'),
    "NaN": raw(b'{"__metadata__": NaN}'),
    "list": raw(b"[1, 2]"),
    "long header": (2**63).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("name", BYTES)
def test_json_that_costs_more_than_it_weighs(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileFormatError):
        container.read_header(BYTES[name])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown <= 20 * len(BYTES[name]) + (64 << 20)


@pytest.mark.timeout(20)
def test_what_is_no_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(FileFormatError, match=str(path)):
            load(path)


def test_tables_that_overlap_or_leave_holes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    parts(path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert safetensors.torch.load(data)
    outer, payload = data[8 : 8 + length], data[8 + length :]
    for changed, rest in ((outer, payload + b"\0"), (outer, payload[:-1])):
        path.write_bytes(raw(changed, rest))
        with pytest.raises(FileFormatError, match="bytes"):
            load(path)
    path.write_bytes(raw(outer.replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1), payload))
    with pytest.raises(FileFormatError, match="bytes"):
        load(path)


def test_a_replaced_file_keeps_its_permissions_and_links(tmp_path: Path) -> None:
    path, link = tmp_path / "private", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    for target in (path, link):
        write_atomically(target, b"new")
        assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    fresh = tmp_path / "fresh"
    write_atomically(fresh, b"new")
    umask = os.umask(0)
    os.umask(umask)
    assert fresh.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("change", ("folded", "layers", "entry", "out_scale", "sites"))
def test_hostile_files_of_version_1(change: str, tmp_path: Path) -> None:
    """What is read before the file has the present form is checked before that, too."""
    header, tensors = container.read(DATA / "version1_gcn.safetensors", container.MODEL)
    name = next(n for n, e in header["layers"].items() if e["config"].get("folded"))
    {
        "folded": lambda: header.pop("folded"),
        "layers": lambda: header.update(layers=[]),
        "entry": lambda: header["layers"][name].pop("config"),
        "out_scale": lambda: tensors.pop(f"{name}.out_scale"),
        "sites": lambda: header["layers"][name].update(sites={"message": 1}),
    }[change]()
    header.pop("checksums")
    container.write(tmp_path / "old", container.MODEL, header, tensors)
    with pytest.raises(FileFormatError, match=r"lacks|must be|must have"):
        load(tmp_path / "old")


def test_embeddings_declare_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = nn.Sequential(nn.Embedding(6, 4, padding_idx=5), nn.Linear(4, 3))
    prepared = prepare(model, make_config("uniform", bits=4)).train()
    prepared(torch.arange(6))
    convert(prepared.eval()).save(path)
    assert torch.equal(load(path, model).module[0].weight, prepared[0].weight)
    for key, value, words in (
        ("padding_idx", -1, "null or an integer"),
        ("padding_idx", 6, "has 6 rows"),
        ("num_embeddings", 7, "7 x 4"),
    ):
        header, tensors = container.read(path, container.MODEL)
        header["layers"]["0"]["config"][key] = value
        header.pop("checksums")
        container.write(tmp_path / "changed", container.MODEL, header, tensors)
        with pytest.raises((FileFormatError, ConfigError), match=words):
            load(tmp_path / "changed", model)
