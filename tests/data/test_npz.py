"""Sparse files give what PyG gives, without its dense copies."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data
from torch_geometric.io import read_npz as pyg_read_npz
from torch_geometric.transforms import NormalizeFeatures

from nodebits.core.errors import DataNotFoundError, FileFormatError
from nodebits.data import load_dataset
from nodebits.data.features import normalize_rows
from nodebits.data.npz import read_npz


def write_npz(path: Path, nodes: int = 90, words: int = 40, dtype: str = "float32") -> Path:
    """A graph with loops, one-way edges, repeated entries, and counts of words."""
    random = np.random.default_rng(0)
    attributes = scipy.sparse.random(nodes, words, 0.1, "csr", random_state=1)
    attributes.data = random.integers(-1, 4, attributes.nnz).astype(dtype)
    row, col = random.integers(0, nodes, (2, 4 * nodes))
    adjacency = scipy.sparse.csr_matrix((np.ones(4 * nodes, dtype), (row, col)), (nodes, nodes))
    parts = {}
    for name, matrix in (("attr", attributes), ("adj", adjacency)):
        parts |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        parts[f"{name}_shape"] = np.array(matrix.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, labels=np.arange(nodes) % 3, **parts)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_the_graph_is_that_of_pyg(tmp_path: Path, dtype: str) -> None:
    path = write_npz(tmp_path / "x.npz", dtype=dtype)
    ours, theirs = read_npz(path), pyg_read_npz(str(path))
    assert ours.x.dtype == torch.float32
    for name in ("x", "edge_index", "y"):
        assert torch.equal(ours[name], theirs[name]), name


def test_rows_are_normalized_as_in_pyg() -> None:
    for x in (torch.rand(7, 5), torch.randn(7, 5), torch.zeros(3, 4), torch.zeros(0, 4)):
        expected = NormalizeFeatures()(Data(x=x.clone())).x
        assert torch.equal(normalize_rows(x), expected)


def test_coauthor_is_read_from_its_raw_file_alone(tmp_path: Path) -> None:
    raw = write_npz(tmp_path / "data" / "Physics" / "raw" / "ms_academic_phy.npz")
    loaded = load_dataset("Physics", tmp_path / "data", cache=tmp_path / "cache")
    assert loaded.name == "Coauthor-Physics" and loaded.features_normalized
    expected = NormalizeFeatures()(pyg_read_npz(str(raw)))
    assert torch.equal(loaded.data.x, expected.x)
    assert not (tmp_path / "cache").exists()


def test_numpy_holds_no_dense_copy(tmp_path: Path) -> None:
    """Torch's memory is not traced: all that NumPy and SciPy allocate is the sparse parts."""
    path = write_npz(tmp_path / "x.npz", nodes=2000, words=1000)
    dense = 4 * 2000 * 1000
    tracemalloc.start()
    read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < dense


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    raw = tmp_path / "CS" / "raw"
    raw.mkdir(parents=True)
    (raw / "ms_academic_cs.npz").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"Coauthor-CS.*damaged"):
        load_dataset("CS", tmp_path, cache=tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "CS" / "raw").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=r"ms_academic_cs\.npz"):
        load_dataset("CS", tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attr_indptr", np.array([0, 5, 2, 10**6]), "attr_indptr"),
        ("adj_indices", np.full(360, 90), "adj_indices"),
        ("adj_indices", np.full(360, -1), "adj_indices"),
        ("adj_shape", np.array([90, 91]), "adj is"),
        ("attr_shape", np.array([90, 1 << 21]), "columns"),
        ("attr_shape", np.array([-1, 40]), "attr_shape"),
        ("labels", np.arange(3), "labels"),
        ("labels", np.array([[None]]), "labels"),
        ("attr_data", np.zeros(3, "c8"), "attr_data"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, value: np.ndarray, words: str
) -> None:
    """SciPy would follow indices out of its arrays."""
    path = write_npz(tmp_path / "x.npz")
    with np.load(path) as file:
        arrays = dict(file)
    if name == "attr_indptr":
        value = np.concatenate([value, np.zeros(91 - value.size, np.int64)])
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(FileFormatError, match=words):
        read_npz(path)


def test_an_archive_that_unpacks_to_far_more(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("class_names.npy", bytes(80 << 20))
    assert read_npz(path)  # what is not ours is not read
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a", 8) as archive:
        archive.writestr("labels.npy", bytes(80 << 20))
    with pytest.raises(FileFormatError, match="are packed into"):
        read_npz(path)
