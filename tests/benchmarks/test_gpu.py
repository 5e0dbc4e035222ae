"""The benchmark of CUDA devices: what it times runs, here on the CPU; without a card it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

import gpu
import gpu_calls
from nodebits.ops import Edges
from nodebits.ops.backends.triton import choice

CPU = torch.device("cpu")


def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    monkeypatch.setenv("NODEBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    given = {"graph": "random:200:900", "columns": 16, "hidden": 8, "shape": (20, 30, 10)}
    return argparse.Namespace(**given, graphs=3, repeats=1, only=gpu.PARTS)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_part_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = gpu.measured(small(monkeypatch, tmp_path), CPU)
    assert report["rows"].keys() == set(gpu.PARTS)
    for rows in report["rows"].values():
        ours = [row for row in rows if row["name"].startswith("nodebits")]
        assert ours and all(row["median"] > 0 for row in ours)
        assert all(row.get("reason") or row["median"] > 0 for row in rows)
    names = [row["name"] for row in report["rows"]["sums"]]
    assert "torch.sparse.mm, float16" in names and "torch_scatter.segment_csr, float32" in names
    table = gpu.table_of(report)
    assert table.count("\n") == 3 + sum(map(len, report["rows"].values()))


def test_segments_are_those_of_neighbours() -> None:
    edges = Edges(torch.tensor([0, 2, 2, 3]), torch.tensor([1, 2, 0], dtype=torch.int32))
    x = torch.tensor([[1.0], [2.0], [4.0]])
    found = gpu_calls.segments(edges, x)["torch.segment_reduce, float32"]()
    assert torch.equal(found, torch.tensor([[6.0], [0.0], [1.0]]))


def test_molecules_are_graphs_of_their_own() -> None:
    x, edge_index, batch = gpu_calls.molecules(20)
    assert x.shape == (batch.numel(), gpu_calls.ATOMS) and torch.equal(x.sum(1), torch.ones(len(x)))
    assert bool((batch[edge_index[0]] == batch[edge_index[1]]).all())
    sizes = batch.bincount()
    assert len(sizes) == 20 and 12 <= int(sizes.min()) and int(sizes.max()) < 38
    both = torch.cat([edge_index, edge_index.flip(0)], 1).unique(dim=1)
    assert both.size(1) == edge_index.size(1)  # both ways, each once
    assert int(edge_index[0].bincount(minlength=len(x)).min()) >= 1


REPORT = {
    "card": "Some Card", "cuda": "13.0", "graph": "reddit-like",
    "rows": {
        "sums": [
            {"name": "torch.sparse.mm, float32", "median": 4.0, "p90": 4.5, "extra_bytes": 2**21},
            {"name": "torch.sparse.mm, float16", "median": 3.0, "p90": 3.5, "extra_bytes": 2**20},
            {"name": "pyg_lib segment_csr, float32", "reason": "ImportError: none"},
            {"name": "nodebits sum, 4 bits", "median": 0.5, "p90": 0.6, "extra_bytes": 2**20},
        ],
        "train": [{"name": "float", "median": 2.0, "p90": 2.0, "extra_bytes": None}],
    },
}  # fmt: skip


def test_a_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(REPORT))
    assert gpu.main(["--table", str(path)]) == 0
    text = capsys.readouterr().out
    assert "| sums | nodebits sum, 4 bits | 0.500 | 0.600 | 8.00 | 1 |" in text
    assert "| sums | pyg_lib segment_csr, float32 | ImportError: none | | | |" in text
    assert "| train | float | 2.000 | 2.000 | 1.00 |  |" in text and "Some Card" in text


@pytest.mark.skipif(choice.device_problem() is None, reason="there is a card")
def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "CUDA device" in capsys.readouterr().err
