"""Files of packed features: the rows that were written, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.engine.packed_input import PackedInput
from nodebits.runtime import container
from packed_models import NODES, Case, make_case, threads


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


CASES: dict[str, dict[str, Any]] = {
    "dense": {},
    "dense signed": {"name": "sage"},
    "sparse": {"features": 400},
    "float": {"overrides": {"convs.0.lin.input": 32}},
    "width per node": {"method": "a2q"},
    "width per node, message": {"name": "gin", "method": "a2q"},
    "width per degree": {"method": "sgquant", "splits": (4, 8), "degree_bits": (6, 4, 3)},
    "width per degree, two readers": {
        "name": "sage",
        "method": "sgquant",
        "splits": (4, 8),
        "degree_bits": (6, 4, 3),
    },
}


def ready(case: Case) -> PackedInput:
    return case.packed.pack_input(case.x, edge_index=case.edge_index)


@pytest.mark.parametrize("kind", CASES)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    case = make_case(**CASES[kind])
    features, path = ready(case), tmp_path / "x.safetensors"
    case.packed.save_input(features, path)
    again = case.packed.load_input(path)
    assert again.shape == features.shape and set(again.rows) == set(features.rows)
    out = case.packed.predict(again, case.edge_index)
    assert torch.equal(out, case.packed.predict(case.x, case.edge_index))
    case.packed.save_input(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_width_per_node_is_in_the_model_alone(tmp_path: Path) -> None:
    """The file is as small as the mean width says: codes and a header."""
    case = make_case("gcn", "a2q")
    features, path = ready(case), tmp_path / "x.safetensors"
    case.packed.save_input(features, path)
    rows = features.rows["convs.0.lin.input"]
    header, tensors = container.read(path, container.FEATURES)
    assert list(tensors) == ["convs.0.lin.input/packed"]
    codes = sum((12 * int(b) + 7) // 8 for b in rows.layout.widths)  # type: ignore[union-attr]
    assert tensors["convs.0.lin.input/packed"].nbytes == codes
    assert header["shape"] == [NODES, 12]


def test_files_of_another_model_are_refused(tmp_path: Path) -> None:
    one, other, wider = make_case("gcn", "a2q"), make_case(), make_case(bits=8)
    path = tmp_path / "x.safetensors"
    one.packed.save_input(ready(one), path)
    with pytest.raises(ConfigError, match="of another model"):
        other.packed.load_input(path)
    other.packed.save_input(ready(other), tmp_path / "other")
    with pytest.raises(ConfigError, match="of another model"):
        wider.packed.load_input(tmp_path / "other")
    with pytest.raises(ConfigError, match="which this model has not"):
        make_case("gin").packed.load_input(path)
    with pytest.raises(ConfigError, match="which this model has not"):
        make_case("gin").packed.save_input(ready(one), path)
    one.packed.save(tmp_path / "model")
    with pytest.raises(FileFormatError, match=r"is a nodebits model, not a file of packed"):
        one.packed.load_input(tmp_path / "model")
    from nodebits import load

    with pytest.raises(FileFormatError, match="is a file of packed features, not a nodebits"):
        load(path)


def test_a_reordered_graph_is_in_no_file(tmp_path: Path) -> None:
    case = make_case()
    graph = case.packed.prepare_graph(case.edge_index, NODES, reorder=True)
    with pytest.raises(ConfigError, match="reordered graph"):
        case.packed.save_input(
            case.packed.pack_input(case.x, edge_index=graph), tmp_path / "x.safetensors"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ("dense", "sparse", "width per node", "width per degree"))
def test_damage_is_noticed(kind: str, tmp_path: Path) -> None:
    case = make_case(**CASES[kind])
    path = tmp_path / "x.safetensors"
    case.packed.save_input(ready(case), path)
    good = path.read_bytes()
    for at in range(0, len(good), 97):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(FileFormatError):
            case.packed.load_input(path)
    path.write_bytes(good[:-1])
    with pytest.raises(FileFormatError):
        case.packed.load_input(path)


def test_rows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """A file with good checksums may still hold columns that do not exist, or too few bytes."""
    sparse, mixed = make_case(features=400), make_case(**CASES["width per degree"])
    path = tmp_path / "x.safetensors"
    for case, part in ((sparse, "indices"), (sparse, "counts"), (mixed, "packed")):
        case.packed.save_input(ready(case), path)
        header, tensors = container.read(path, container.FEATURES)
        name = f"convs.0.lin.input/{part}"
        value = tensors[name].clone()
        if part == "packed":
            value = value[:-1]
        else:
            value.view(torch.int16 if part == "indices" else torch.int32)[0] = 1000
        about = {key: header[key] for key in ("shape", "rows")}
        container.write(path, container.FEATURES, about, {**tensors, name: value})
        with pytest.raises(FileFormatError, match="rows of site"):
            case.packed.load_input(path)


def test_headers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    case = make_case()
    path = tmp_path / "x.safetensors"
    site = "convs.0.lin.input"
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "header.shape": lambda h: h.update(shape=[40]),
        "header.rows": lambda h: h.update(rows=None),
        f"rows.{site} ": lambda h: h["rows"].update({site: 1}),
        "num_cols": lambda h: h["rows"][site].update(num_cols="12"),
        "bits": lambda h: h["rows"][site].update(bits=True),
        "header.shape is": lambda h: h.update(shape=[41, 12]),
    }
    for words, change in changes.items():
        case.packed.save_input(ready(case), path)
        header, tensors = container.read(path, container.FEATURES)
        change(header)
        about = {key: header[key] for key in ("shape", "rows")}
        container.write(path, container.FEATURES, about, tensors)
        with pytest.raises(FileFormatError, match=words):
            case.packed.load_input(path)
