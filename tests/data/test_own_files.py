"""Graphs of one's own, as a file and as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nodebits.core.errors import ConfigError, DataNotFoundError, FileFormatError, NodebitsError
from nodebits.data import load_dataset

EDGES = np.array([[0, 1, 2, 5], [1, 2, 3, 0]])


def parts() -> dict[str, Any]:
    return {"x": np.eye(6, 4), "y": np.arange(6) % 2, "edge_index": EDGES}


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def csv_folder(folder: Path, nodes: str, edges: str) -> Path:
    (folder / "mine").mkdir()
    (folder / "mine" / "nodes.csv").write_text(nodes)
    (folder / "mine" / "edges.csv").write_text(edges)
    return folder / "mine"


def test_an_npz_file(tmp_path: Path) -> None:
    found = load_dataset(str(npz(tmp_path, **parts())))
    assert (found.name, found.num_features, found.num_classes) == ("mine.npz", 4, 2)
    assert found.data.edge_index.tolist() == EDGES.tolist()
    assert "seed 0" in found.notes
    # The name that a model file carries is found below the data folder.
    assert load_dataset("mine.npz", tmp_path).num_features == 4


def test_its_own_split(tmp_path: Path) -> None:
    masks = {
        f"{name}_mask": np.arange(6) // 2 == n for n, name in enumerate(("train", "val", "test"))
    }
    path = str(npz(tmp_path, **parts(), **masks))
    found = load_dataset(path)
    assert [i.tolist() for i in (found.train_idx, found.val_idx, found.test_idx)] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    with pytest.raises(ConfigError, match="split of its own"):
        load_dataset(path, split=3)


def test_a_csv_folder_is_the_same_graph(tmp_path: Path) -> None:
    rows = ["a,b,c,d,label,split"]
    kinds = ("train", "val", "test")
    for number, row in enumerate(np.eye(6, 4)):
        rows.append(",".join(map(str, [*row, number % 2, kinds[number // 2]])))
    edges = "source,target\n" + "\n".join(f"{a},{b}" for a, b in EDGES.T)
    folder = csv_folder(tmp_path, "\n".join(rows), edges)
    found, same = load_dataset(str(folder)), load_dataset(str(npz(tmp_path, **parts())))
    assert found.name == "mine"
    for name in ("x", "y", "edge_index"):
        assert torch.equal(found.data[name], same.data[name])
    assert found.val_idx.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, "lacks x"),
        ({"y": np.zeros(5, int)}, "5 rows for 6 nodes: one class per row"),
        (
            {"y": np.zeros(6)},
            r"mine\.npz: y is torch.float64 \[6\].*name the task.*one class",
        ),
        ({"y": np.arange(6) - 1}, r"mine\.npz: node 0 .*y is -1"),
        ({"edge_index": EDGES.T}, r"node numbers \[2, E\]"),
        ({"edge_index": EDGES + 3}, "edge_index has 8; there are 6 nodes"),
        ({"x": np.full((6, 4), "a")}, "numbers"),
        ({"x": np.full((6, 4), np.nan)}, "NaN"),
        ({"x": np.full((6, 4), 1, object)}, "'x' holds Python objects.*numpy.array"),
        ({"train_mask": np.ones(6, bool)}, "all three or none"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    arrays = {name: value for name, value in {**parts(), **change}.items() if value is not None}
    with pytest.raises(NodebitsError, match=words):
        load_dataset(str(npz(tmp_path, **arrays)))


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        ("a,b\n1,2", "s,t\n0,0", "no column 'label'"),
        ("a,label\n1", "s,t\n0,0", "line 2: 1 values under 2"),
        ("a,label\n1,0\nx,0\n2,1\n3,1", "s,t\n0,0", "line 3: 'a' is 'x', and numbers in most rows"),
        ("a,label\n1,0", "", "edges.csv is empty"),
    ],
)
def test_faults_of_a_folder_are_named(tmp_path: Path, nodes: str, edges: str, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        load_dataset(str(csv_folder(tmp_path, nodes, edges)))


def test_a_file_that_is_not_there_or_no_file_of_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"none\.npz"):
        load_dataset(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(FileFormatError, match=r"text\.npz"):
        load_dataset(str(tmp_path / "text.npz"))
