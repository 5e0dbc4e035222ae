"""Real data sets, where their raw files are to be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nodebits.core.errors import ConfigError
from nodebits.data import folds, load_dataset


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to (size, modification time) of everything below ``folder``, folders included."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def need(root: Path, folder: str) -> None:
    if not (root / folder / "raw").is_dir():
        pytest.skip(f"no {folder} in {root}")


def test_cora(data_root: Path, data_cache: Path) -> None:
    need(data_root, "Cora")
    before = snapshot(data_root / "Cora")
    cora = load_dataset("cora", data_root, cache=data_cache)
    assert cora.name == "Cora"
    assert cora.data.x.shape == (2708, 1433)
    assert cora.data.edge_index.shape == (2, 10556)
    assert [len(i) for i in (cora.train_idx, cora.val_idx, cora.test_idx)] == [140, 500, 1000]
    assert cora.features_normalized
    torch.testing.assert_close(cora.data.x.sum(1), torch.ones(2708))
    assert "public" in cora.notes
    full = load_dataset("CORA", data_root, cache=data_cache, split="full", normalize_features=False)
    assert len(full.train_idx) == 1208
    assert full.data.x.unique().tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match="'public' or 'full'"):
        load_dataset("cora", data_root, cache=data_cache, split=3)
    assert snapshot(data_root / "Cora") == before


def test_amazon_photo_has_a_fixed_split(data_root: Path, data_cache: Path) -> None:
    need(data_root, "Photo")
    photo = load_dataset("Amazon Photo", data_root, cache=data_cache)
    assert photo.name == "Amazon-Photo"
    assert photo.data.num_nodes == 7650
    assert torch.bincount(photo.data.y[photo.data.train_mask]).tolist() == [20] * 8
    assert torch.bincount(photo.data.y[photo.data.val_mask]).tolist() == [30] * 8
    again = load_dataset("photo", data_root, cache=data_cache)
    assert torch.equal(again.train_idx, photo.train_idx)


def test_amazon_features_stay_as_they_are_unless_asked(data_root: Path, data_cache: Path) -> None:
    need(data_root, "Photo")
    usual = load_dataset("Amazon Photo", data_root, cache=data_cache)
    assert not usual.features_normalized
    assert usual.data.x.unique().tolist() == [0.0, 1.0]
    shares = load_dataset("Amazon Photo", data_root, cache=data_cache, normalize_features=True)
    assert shares.features_normalized
    filled = usual.data.x.sum(1) > 0
    torch.testing.assert_close(shares.data.x.sum(1), filled.float())


def test_minesweeper_splits(data_root: Path, data_cache: Path) -> None:
    need(data_root, "minesweeper")
    first = load_dataset("minesweeper", data_root, cache=data_cache)
    last = load_dataset("minesweeper", data_root, cache=data_cache, split=9)
    assert first.data.train_mask.shape == (10000,)
    assert len(first.train_idx) == len(last.train_idx) == 5000
    assert not torch.equal(first.train_idx, last.train_idx)
    with pytest.raises(ConfigError, match="0 to 9"):
        load_dataset("minesweeper", data_root, cache=data_cache, split=10)


def test_mutag_folds(data_root: Path, data_cache: Path) -> None:
    need(data_root, "MUTAG")
    before = snapshot(data_root / "MUTAG")
    mutag = load_dataset("TU:mutag", data_root, cache=data_cache, split=2)
    assert (len(mutag), mutag.num_features, mutag.num_classes) == (188, 7, 2)
    assert torch.equal(folds(mutag)[2][2], mutag.test_idx)
    assert snapshot(data_root / "MUTAG") == before


@pytest.mark.slow
def test_reddit_binary_gets_binned_degrees(data_root: Path, data_cache: Path) -> None:
    need(data_root, "REDDIT-BINARY")
    reddit = load_dataset("reddit-binary", data_root, cache=data_cache)
    assert (len(reddit), reddit.num_features) == (2000, 12)
    every = torch.cat([graph.x for graph in reddit.graphs])
    assert every.shape == (859254, 12)
    assert every.sum(1).eq(1).all()


@pytest.mark.slow
def test_two_processes_may_load_at_once(data_root: Path, tmp_path: Path) -> None:
    need(data_root, "MUTAG")
    code = (
        "import sys; from nodebits.data import load_dataset; "
        "print(load_dataset('MUTAG', sys.argv[1], cache=sys.argv[2]).train_idx.tolist())"
    )
    command = [sys.executable, "-c", code, str(data_root), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    one, two = (process.communicate(timeout=120)[0] for process in running)
    assert one
    assert one == two
    assert [path.name.startswith("tu-MUTAG-") for path in (tmp_path / "processed").iterdir()] == [
        True
    ]
