"""Files of models of version 4: as small as what they hold, and refused where that is wrong."""

from __future__ import annotations

import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from folded_damage import DAMAGE, bomb, damaged, many
from model_files import degrees, folded_bytes, scaled
from torch import nn
from torch_geometric.nn import PNAConv

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError, FileFormatError, FileVersionError
from nodebits.runtime import container, folded, load, read_header
from packed_models import make_case, small_graph

TENSORS = {
    **{f"{bits}": torch.arange(bits, dtype=torch.uint8) for bits in range(1, 9)},
    "half": torch.ones(3, dtype=torch.float16),
    "none": torch.zeros(0, 5),
    "one": torch.tensor(2.5, dtype=torch.float64),
    "flags": torch.tensor([[True], [False]]),
    "large": torch.arange(2000.0),
    "brain": torch.ones(5, 2, dtype=torch.bfloat16),
}


def parse(data: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return container.read_stream(io.BytesIO(data), len(data), container.MODEL)


def as_version_3(path: Path, old: Path) -> dict[str, torch.Tensor]:
    """Writes a model's file in the form of version 3; its tensors."""
    header, tensors = container.read(path, container.MODEL)
    container.write(old, container.MODEL, {**header, "version": 3}, tensors)
    return tensors


class PNA(nn.Module):
    """Towers: what a plan of many constants comes from."""

    def __init__(self) -> None:
        super().__init__()
        about = {"towers": 4, "deg": torch.tensor([0, 9, 12, 4], device="cpu")}
        aggregators, scalers = ["mean", "max", "min", "std"], ["identity", "amplification"]
        self.one = PNAConv(12, 32, aggregators, scalers, **about)
        self.two = PNAConv(32, 32, aggregators, scalers, **about)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.two(self.one(x, edge_index).relu(), edge_index)
        return result


def test_what_is_written_is_read(tmp_path: Path) -> None:
    contents = {"metadata": {"π": ["ü", 1e400, None]}, "plan": {"steps": []}}
    container.write(tmp_path / "m", container.MODEL, contents, TENSORS)
    header, tensors = container.read(tmp_path / "m", container.MODEL)
    assert header.pop("checksums").keys() == {".contents", ".small", "large"}
    assert header == {"format": "nodebits", "version": 4, **contents}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype and torch.equal(tensor, TENSORS[name])
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    again = tmp_path / "again"
    backwards = dict(reversed(TENSORS.items()))
    container.write(again, container.MODEL, dict(reversed(contents.items())), backwards)
    assert again.read_bytes() == (tmp_path / "m").read_bytes()


def test_other_programs_see_large_tensors(tmp_path: Path) -> None:
    container.write(tmp_path / "m", container.MODEL, {}, TENSORS)
    found = safetensors.torch.load_file(tmp_path / "m")
    assert found.keys() == {".contents", ".small", "large"}
    assert torch.equal(found["large"], TENSORS["large"])
    assert all(tensor.data_ptr() % 8 == 0 for tensor in found.values())


def test_files_of_narrow_models_are_smaller_than_their_weights(tmp_path: Path) -> None:
    x, edges = small_graph()
    model = PNA()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    packed = nodebits.convert(prepared)
    expected = packed.predict(x, edges)
    assert torch.equal(prepared(x, edges), expected)
    packed.save(tmp_path / "m")
    weights = sum(t.nbytes for t in model.state_dict().values())
    assert (tmp_path / "m").stat().st_size < 0.7 * weights
    loaded = load(tmp_path / "m", model=PNA())
    assert not isinstance(loaded.plan(), str)
    assert torch.equal(loaded.predict(x, edges), expected)
    as_version_3(tmp_path / "m", tmp_path / "old")
    given = x.numpy(), edges.numpy()
    one, other = (lite.load(tmp_path / name).predict(*given) for name in ("old", "m"))
    assert (one == other).all()
    # Its logarithms of degrees are not torch's.
    assert torch.allclose(torch.from_numpy(other), expected, atol=1e-5)


@pytest.mark.parametrize("name", ("gcn", "gat", "gin"))
def test_files_of_version_3_are_read_as_those_of_version_4(name: str, tmp_path: Path) -> None:
    case = make_case(name)
    case.packed.save(tmp_path / "new")
    tensors = as_version_3(tmp_path / "new", tmp_path / "old")
    old, new = (read_header((tmp_path / n).read_bytes()) for n in ("old", "new"))
    assert (old.pop("version"), new.pop("version")) == (3, 4)
    assert old.pop("checksums").keys() == tensors.keys()
    assert new.pop("checksums").keys() >= {".contents", ".small"} and new.pop("small")
    assert old == new
    one, other = (load(tmp_path / n) for n in ("old", "new"))
    given = case.x, case.edge_index
    assert torch.equal(one.predict(*given, **case.extra), other.predict(*given, **case.extra))


def test_the_header_is_in_front(tmp_path: Path) -> None:
    """Of a large file the beginning will do."""
    container.write(tmp_path / "m", container.MODEL, {"metadata": {"a": 1}}, TENSORS)
    data = (tmp_path / "m").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    outer = json.loads(data[8:end])
    behind = end + outer[".contents"]["data_offsets"][1]
    assert read_header(data[:behind])["metadata"] == {"a": 1}
    with pytest.raises(FileFormatError, match=r"ends in tensor '\.contents'"):
        read_header(data[: behind - 1])


def test_long_contents_of_short_files_are_stored(tmp_path: Path) -> None:
    """What reading takes follows from the size of a file."""
    metadata = {"a": "b" * (2 << 20)}
    container.write(tmp_path / "m", container.MODEL, {"metadata": metadata}, {})
    assert (tmp_path / "m").stat().st_size > 2 << 20
    assert container.read(tmp_path / "m", container.MODEL)[0]["metadata"] == metadata


def test_more_small_tensors_than_any_file_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded, "_MOST_SMALL", 3)
    container.write(tmp_path / "m", container.MODEL, {}, TENSORS)
    header, tensors = container.read(tmp_path / "m", container.MODEL)
    assert len(header["checksums"]) == 2 + len(TENSORS) - 3
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_names_that_files_use_are_refused(tmp_path: Path) -> None:
    for name in (folded.CONTENTS, folded.SMALL):
        with pytest.raises(ConfigError, match="rename"):
            container.write(tmp_path / "m", container.MODEL, {}, {name: torch.ones(2)})


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_said(name: str) -> None:
    with pytest.raises((FileFormatError, FileVersionError), match=DAMAGE[name][1]) as caught:
        parse(damaged(name))
    assert len(str(caught.value)) < 1000


def test_right_files_are_read() -> None:
    assert len(parse(many(folded._MOST_SMALL))[1]) == folded._MOST_SMALL
    header, tensors = parse(folded_bytes(*scaled()))
    assert header["plan"] == scaled()[0] and tensors.keys() == {"scale", "shift"}
    assert parse(folded_bytes(degrees()))[1] == {}


def test_bools_are_0_or_1() -> None:
    plan, _ = scaled()
    table = [["BOOL", {"mask": [8]}]]
    assert parse(folded_bytes(plan, small=table, held=bytes(7) + b"\1"))[1]["mask"].any()
    with pytest.raises(FileFormatError, match=r"'mask'.*neither 0 nor 1"):
        parse(folded_bytes(plan, small=table, held=bytes(7) + b"\2"))


@pytest.mark.parametrize("data", (bomb(2_000_000), bomb(90_000_000), many(40_000)), ids=len)
def test_short_files_that_would_take_much(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileFormatError):
        parse(data)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown <= 20 * len(data) + (64 << 20)
