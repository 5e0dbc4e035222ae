"""The benchmark of CUDA devices: what it times runs, here on the CPU; without a card it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gpu
from nodebits.bench.speed.graphs import load_graph
from nodebits.ops.backends.triton import choice

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_part_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NODEBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    found = load_graph("random:200:900")
    for calls in (
        gpu.sums(found, 16, CPU),
        gpu.products((20, 30, 10), CPU),
        gpu.forwards(found, 8, CPU),
        gpu.steps(found, 8, CPU),
    ):
        with torch.set_grad_enabled("float" in calls):
            rows = gpu.timed(calls, CPU, 1)
        assert [row["name"] for row in rows] == list(calls)
        ours = [row for row in rows if row["name"].startswith("nodebits")]
        assert ours and all(row["median"] > 0 for row in ours)
        assert all(row.get("reason") or row["median"] > 0 for row in rows)


@pytest.mark.skipif(choice.device_problem() is None, reason="there is a card")
def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "CUDA device" in capsys.readouterr().err
