"""``nodebits bench --device cuda``: what it refuses, and its table of a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits.bench.speed import run as speed_run
from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport, SpeedSettings
from nodebits.bench.speed.stream import Bandwidth
from nodebits.cli.output import print_speed
from nodebits.ops.backends.triton import choice

Command = Callable[..., Any]
KINDS = ("aggregate", "dense", "model", "train", "molecules", "rows")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_card(run: Command, tmp_path: Path, kind: str) -> None:
    found = run("bench", kind, "--device", "cuda", "--json", tmp_path / "rows.json")
    assert found.code == 2 and not found.out and not list(tmp_path.iterdir())
    (line,) = found.err.strip().splitlines()
    assert "--device cuda" in line and "torch finds no CUDA device" in line
    assert "nodebits info" in line and ("--device cpu" in line) == (kind != "rows")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["aggregate", "--device", "tpu"], ["tpu", "cpu", "cuda"]),
        (["aggregate", "--threads", "2", "--device", "cuda"], ["--threads", "CPU alone"]),
        (["model", "--reorder", "--device", "cuda"], ["--reorder", "CPU alone"]),
        (["growth", "--device", "cuda"], ["growth", "CPU alone", "aggregate"]),
        (["rows", "--device", "cpu"], ["rows", "--device cuda", "cpu"]),
        (["molecules", "--graphs", "0"], ["graphs", "0"]),
    ],
)
def test_refused(
    run: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("bench", *arguments)
    assert found.code == 2, found.err
    (line,) = found.err.strip().splitlines()
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def test_the_calls_are_made_where_the_device_is(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card is stood in for by the CPU: every kind reaches its measurement with its settings."""
    asked: list[tuple[str, torch.device, bool]] = []

    def measure(settings: SpeedSettings, bench: object, protocol: object) -> list[Row]:
        asked.append((settings.what, protocol.device, protocol.card))  # type: ignore[attr-defined]
        return [replace(ROWS[1], threads=torch.get_num_threads())]

    def no_bandwidth(device: torch.device) -> Bandwidth:
        return Bandwidth(1e12, 2e12)

    monkeypatch.setattr(choice, "device_problem", lambda: None)
    monkeypatch.setattr(choice, "triton_problem", lambda: None)
    monkeypatch.setattr(speed_run, "_measure", measure)
    monkeypatch.setattr(speed_run, "stream_bandwidth", no_bandwidth)
    monkeypatch.setattr(speed_run, "describe_card", lambda device: {"card": "Card 1", "cuda": "13"})
    for kind in KINDS:
        own = ["--graph", "random:20:60", "--cache", tmp_path] if kind in GRAPHS else []
        found = run("bench", kind, "--device", "cuda", *own)
        assert found.code == 0 and "Card 1" in found.out, found.err
    assert asked == [(kind, torch.device("cuda"), True) for kind in KINDS]


GRAPHS = ("aggregate", "model", "train")
ROWS = [
    Row("aggregate", "reddit-like", "torch.sparse CSR", "float32", 32, 2, 0.004, spread=1e-4),
    Row("aggregate", "reddit-like", "nodebits u4", "nodebits", 4, 2, 0.0005, spread=1e-5,
        stream_share=0.5, ratio_best_float32=8.0, peak_mib=57.0),
    Row("aggregate", "reddit-like", "pyg_lib segment_csr float16", "float", 16, 2,
        note="skipped: ModuleNotFoundError: No module named 'pyg_lib'"),
]  # fmt: skip


def test_the_table_names_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    report = SpeedReport(SpeedSettings("aggregate", device="cuda"), ROWS)
    report.environment = {"isa": "avx2", "other_load": None, "card": "Some Card", "cuda": "13.0"}
    report.bandwidth = {2: {"read": 3e12, "triad": 2.5e12}}
    print_speed(report)
    text = capsys.readouterr().out
    assert "aggregate, reddit-like, Some Card; stream 3000.0 GB/s read" in text
    assert "avx2" not in text and "8.00" in text and "50 %" in text and "57" in text
    assert "pyg_lib segment_csr float16: skipped: ModuleNotFoundError" in text
