"""Sets that only a data folder knows, other tasks, node attributes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_geometric.datasets import TUDataset

from nodebits.core.errors import (
    ConfigError,
    DataNotFoundError,
    FileFormatError,
    UnknownNameError,
    UnsupportedTaskError,
)
from nodebits.data import load_dataset
from nodebits.data.catalogue import find_entry
from tu_files import write_tu


def test_a_folder_is_found_with_and_without_the_prefix(tmp_path: Path) -> None:
    write_tu(tmp_path, "My_Set")
    for name in ("My_Set", "TU:My_Set", "TU:my_set", "my_set"):
        loaded = load_dataset(name, tmp_path, cache=tmp_path / "cache")
        assert (loaded.name, len(loaded), loaded.num_features) == ("TU:My_Set", 24, 3)
        assert find_entry(loaded.name).name == loaded.name  # what a model file says loads again


def test_node_attributes_as_pyg_has_them(tmp_path: Path) -> None:
    write_tu(tmp_path / "data", "ENZYMES", attributes=18)
    plain = load_dataset("ENZYMES", tmp_path / "data", cache=tmp_path / "cache")
    full = load_dataset(
        "ENZYMES", tmp_path / "data", cache=tmp_path / "cache", use_node_attr=True, split=3
    )
    assert (plain.num_features, full.num_features) == (3, 21)
    assert "18 node attributes left out" in plain.notes
    assert "18 node attributes used" in full.notes and "fold 3" in full.notes
    theirs = TUDataset(str(tmp_path / "data"), "ENZYMES", use_node_attr=True)
    assert torch.equal(full.graphs[5].x, theirs[5].x)
    with pytest.raises(ConfigError, match="TU collection"):
        load_dataset("digits", use_node_attr=True)


def test_node_attributes_that_are_not_there(tmp_path: Path) -> None:
    write_tu(tmp_path, "Plain")
    with pytest.raises(ConfigError, match="no node attributes"):
        load_dataset("Plain", tmp_path, cache=tmp_path / "cache", use_node_attr=True)


@pytest.mark.parametrize("name", ["Lipo", "freesolv", "QM9", "PPI"])
def test_other_tasks_by_name(name: str, tmp_path: Path) -> None:
    task = "multi-label" if name == "PPI" else "regression"
    with pytest.raises(UnsupportedTaskError, match=task):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("targets", "words"), [("attributes", "regression"), ("several", "48 labels for 24 graphs")]
)
def test_other_tasks_by_content(tmp_path: Path, targets: str, words: str) -> None:
    write_tu(tmp_path, "Odd", targets=targets)
    with pytest.raises(UnsupportedTaskError, match=words):
        load_dataset("TU:Odd", tmp_path, cache=tmp_path / "cache")


def test_a_set_without_targets_is_incomplete(tmp_path: Path) -> None:
    write_tu(tmp_path, "Bare", targets="none")
    with pytest.raises(DataNotFoundError, match=r"lacks Bare_graph_labels\.txt"):
        load_dataset("Bare", tmp_path, cache=tmp_path / "cache")


def test_a_folder_without_graphs_says_so(tmp_path: Path) -> None:
    (tmp_path / "Pictures" / "raw").mkdir(parents=True)
    with pytest.raises(UnknownNameError, match=r"'Pictures'.*holds no graphs"):
        load_dataset("Pictures", tmp_path)


def test_damaged_text_is_named(tmp_path: Path) -> None:
    write_tu(tmp_path, "Torn")
    (tmp_path / "Torn" / "raw" / "Torn_graph_indicator.txt").write_text("1\ntwo\n")
    with pytest.raises(FileFormatError, match=r"TU:Torn.*damaged"):
        load_dataset("Torn", tmp_path, cache=tmp_path / "cache")


def test_too_few_graphs_for_ten_folds(tmp_path: Path) -> None:
    write_tu(tmp_path, "Few", graphs=8)
    with pytest.raises(ConfigError, match=r"TU:Few.*10 folds"):
        load_dataset("Few", tmp_path, cache=tmp_path / "cache")


def test_every_folder_of_the_shared_data_loads_or_says_why(
    data_root: Path, data_cache: Path
) -> None:
    """Names alone: loading them all takes minutes, and is done in ``test_real.py`` where slow."""
    kinds = {}
    for folder in sorted(path.name for path in data_root.iterdir() if path.is_dir()):
        try:
            kinds[folder] = find_entry(folder, data_root).family
        except (UnknownNameError, UnsupportedTaskError) as error:
            kinds[folder] = type(error).__name__
            assert folder.lower() in str(error).lower()
    if "ZINC12k_alt" in kinds:
        with pytest.raises(UnsupportedTaskError, match=r"ZINC12k_alt.*regression"):
            load_dataset("TU:ZINC12k_alt", data_root, cache=data_cache)
    assert kinds
