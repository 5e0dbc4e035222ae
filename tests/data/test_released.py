"""Molecules with a number each: AQSOL, ZINC, ESOL and the alternative to ZINC."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nodebits.core.errors import ConfigError, DataNotFoundError, FileFormatError, MissingExtraError
from nodebits.data import load_dataset
from tu_files import write_tu


def write_aqsol(root: Path, largest: int = 64) -> None:
    """Triangles in PyG's raw form of AQSOL."""
    raw = root / "AQSOL" / "raw"
    raw.mkdir(parents=True)
    edges = np.array([[0, 1, 2], [1, 2, 0]])
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        graphs = [
            (np.array([n, 0, largest]), np.ones(3, np.int64), edges, n / 7) for n in range(count)
        ]
        (raw / f"{part}.pickle").write_bytes(pickle.dumps(graphs))
    for name in ("atom_dict", "bond_dict"):
        (raw / f"{name}.pickle").write_bytes(pickle.dumps({}))


def write_alternative(root: Path) -> Path:
    write_tu(root, "ZINC12k_alt", targets="attributes")
    raw = root / "ZINC12k_alt" / "raw"
    for part, numbers in (("train", range(4, 24)), ("val", (0, 1)), ("test", (2, 3))):
        (raw / f"{part}.index").write_text(",".join(map(str, numbers)))
    return raw


def test_aqsol_with_its_split(tmp_path: Path) -> None:
    write_aqsol(tmp_path)
    found = load_dataset("aqsol", tmp_path, cache=tmp_path / "cache")
    assert (found.task, found.num_features, found.num_classes) == ("graph-regression", 65, 1)
    assert [len(i) for i in (found.train_idx, found.val_idx, found.test_idx)] == [5, 2, 3]
    graph = found.graphs[int(found.train_idx[3])]
    assert graph.x.argmax(1).tolist() == [3, 0, 64] and graph.x.sum() == 3
    assert graph.y == pytest.approx(3 / 7) and "edge_attr" not in graph
    few = load_dataset("AQSOL:2", tmp_path, cache=tmp_path / "cache")
    assert (few.name, len(few), few.val_idx.tolist()) == ("AQSOL:2", 6, [2, 3])
    with pytest.raises(ConfigError, match="one split"):
        load_dataset("AQSOL", tmp_path, cache=tmp_path / "cache", split=0)


def test_atoms_that_the_dictionary_has_not(tmp_path: Path) -> None:
    write_aqsol(tmp_path, largest=65)
    with pytest.raises(FileFormatError, match="an atom is 65"):
        load_dataset("AQSOL", tmp_path, cache=tmp_path / "cache")


def test_the_alternative_to_zinc_with_its_split(tmp_path: Path) -> None:
    raw = write_alternative(tmp_path)
    found = load_dataset("ZINC12k_alt", tmp_path, cache=tmp_path / "cache")
    assert "not comparable" in found.citation and found.num_features == 3
    assert (found.val_idx.tolist(), found.test_idx.tolist()) == ([0, 1], [2, 3])
    assert found.graphs[14].y == pytest.approx(2.0)
    few = load_dataset("ZINC12k_alt:2", tmp_path, cache=tmp_path / "cache")
    assert [float(g.y) for g in few.graphs] == pytest.approx([n / 7 for n in (4, 5, 0, 1, 2, 3)])
    for text, words in (("1,two", "no numbers"), ("24", "0 to 23")):
        (raw / "test.index").write_text(text)
        with pytest.raises(FileFormatError, match=rf"test\.index.*{words}"):
            load_dataset("ZINC12k_alt", tmp_path, cache=tmp_path / "cache")


def test_missing_molecules(tmp_path: Path) -> None:
    (tmp_path / "AQSOL" / "raw").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=r"lacks train\.pickle"):
        load_dataset("AQSOL", tmp_path, cache=tmp_path / "cache")
    with pytest.raises(DataNotFoundError, match="ZINC"):
        load_dataset("ZINC", tmp_path, cache=tmp_path / "cache")


def test_esol(tmp_path: Path) -> None:
    raw = tmp_path / "esol" / "raw"
    raw.mkdir(parents=True)
    head = "id," * 8 + "measured,smiles\n"
    rows = [f"{'0,' * 8}{-n / 2},{'C' * (n + 2)}O\n" for n in range(20)]
    (raw / "delaney-processed.csv").write_text(head + "".join(rows))
    try:
        import rdkit  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"nodebits\[molecules\]"):
            load_dataset("ESOL", tmp_path, cache=tmp_path / "cache")
        return
    found = load_dataset("ESOL", tmp_path, cache=tmp_path / "cache", split=3)
    assert len(found) == 20 and len(found.test_idx) == 2 and "fold 3" in found.notes
    graph = found.graphs[4]
    assert graph.x.sum(1).unique().tolist() == [9.0] and torch.equal(graph.y, torch.tensor([-2.0]))
    with pytest.raises(ConfigError, match="fold"):
        load_dataset("ESOL", tmp_path, cache=tmp_path / "cache", split=10)
