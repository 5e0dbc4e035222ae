"""Names, folders and files that are not there, damaged features, and the cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric import datasets
from torch_geometric.data import Data

from nodebits.core.cache import cache_folder
from nodebits.core.errors import DataNotFoundError, NonFiniteError, UnknownNameError
from nodebits.data import dataset_names, load_dataset
from nodebits.data.base import node_dataset
from nodebits.data.cache import build_once
from nodebits.data.catalogue import find_entry
from nodebits.data.features import add_degree_features
from nodebits.data.splits import per_class_masks


def test_an_unknown_name_lists_close_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'pubmad'.*did you mean 'PubMed'"):
        load_dataset("pubmad")


@pytest.mark.parametrize("name", ["tu:", "TU:../MUTAG", "TU:.hidden", "", None, 3])
def test_names_that_are_no_names(name: Any) -> None:
    with pytest.raises(UnknownNameError):
        load_dataset(name)


def test_every_canonical_name_finds_itself_in_any_case() -> None:
    for name in dataset_names():
        assert find_entry(name).name == name
        assert find_entry(name.upper().replace("-", "_")).name == name
    assert dataset_names()[0] == "digits"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Computers", "Amazon-Computers"),
        ("cs", "Coauthor-CS"),
        ("cora_ml", "CitationFull-Cora_ML"),
        ("TU:proteins", "PROTEINS"),
        ("TU:AIDS", "TU:AIDS"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert find_entry(alias).name == name


def test_a_missing_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFoundError, match=r"nowhere.*NODEBITS_DATA"):
        load_dataset("Cora", tmp_path / "nowhere", cache=tmp_path)
    monkeypatch.setenv("NODEBITS_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_dataset("Cora", cache=tmp_path)


def test_a_missing_set_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="Cora"):
        load_dataset("Cora", tmp_path, cache=tmp_path / "cache")
    (tmp_path / "Cora" / "raw").mkdir(parents=True)
    (tmp_path / "Cora" / "raw" / "ind.cora.x").touch()
    with pytest.raises(DataNotFoundError, match=r"lacks ind\.cora\.tx"):
        load_dataset("Cora", tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_failed_download_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(self: object) -> None:
        raise OSError("name resolution failed")

    monkeypatch.delenv("NODEBITS_DATA", raising=False)
    monkeypatch.setattr(datasets.TUDataset, "download", offline)
    with pytest.raises(DataNotFoundError, match=r"name resolution failed.*TU_X/raw"):
        load_dataset("TU:TU_X", cache=tmp_path)
    assert list((tmp_path / "downloaded").iterdir()) == []


def test_nan_features_are_refused() -> None:
    x = torch.ones(4, 2)
    x[2, 1] = torch.nan
    y = torch.tensor([0, 0, 1, 1])
    data = Data(x=x, edge_index=torch.empty(2, 0, dtype=torch.long), y=y)
    with pytest.raises(NonFiniteError, match="node 2"):
        node_dataset("broken", data, per_class_masks(y), "", "")


def test_a_small_class_keeps_a_test_third() -> None:
    y = torch.tensor([0] * 60 + [1] * 9)
    train, val, test = per_class_masks(y)
    assert torch.bincount(y[train]).tolist() == [20, 3]
    assert torch.bincount(y[val]).tolist() == [30, 3]
    assert torch.bincount(y[test]).tolist() == [10, 3]


def test_degree_features() -> None:
    star = torch.tensor([[0, 1, 0, 2], [1, 0, 2, 0]])
    small = [Data(edge_index=star, num_nodes=4)]
    assert "one-hot" in add_degree_features(small)
    assert small[0].x.argmax(1).tolist() == [2, 1, 1, 0]
    leaves = torch.arange(1, 1002)
    hub = torch.zeros_like(leaves)
    edges = torch.stack([torch.cat([hub, leaves]), torch.cat([leaves, hub])])
    large = [Data(edge_index=edges, num_nodes=1002)]
    assert "10 columns" in add_degree_features(large)
    assert large[0].x.shape == (1002, 10)
    assert large[0].x.argmax(1).tolist() == [9] + [0] * 1001


def test_build_once_keeps_the_first_result(tmp_path: Path) -> None:
    final = tmp_path / "set"

    def rival(work: Path) -> None:
        (work / "late").touch()
        final.mkdir()
        (final / "early").touch()

    assert build_once(final, rival) == final
    assert [path.name for path in final.iterdir()] == ["early"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODEBITS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
