from __future__ import annotations

import json

import pytest

from nodebits.bench.environment import describe_environment
from nodebits.bench.html import human_bytes, render_html
from nodebits.bench.report import to_json_bytes
from nodebits.bench.svg import round_ticks
from nodebits.bench.timing import measure_interleaved
from nodebits.core.errors import OutputError
from nodebits.core.files import ensure_writable_folder, write_atomically


def test_rounds_are_interleaved_and_warmup_is_not_counted(monkeypatch):
    monkeypatch.setattr("nodebits.bench.timing._SETTLING", 0.0)
    calls: list[str] = []
    result = measure_interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1
    )
    # Short calls follow one of their own from the second round that counts.
    assert calls == ["a", "b"] * 2 + ["a", "a", "b", "b"] * 2
    assert result["a"].repeats == 3
    assert 0 <= result["a"].minimum <= result["a"].median <= result["a"].p90


def test_environment_is_json_without_host_names():
    import socket

    text = json.dumps(describe_environment())
    assert "torch" in text and socket.gethostname() not in text


def test_report_refuses_what_json_lacks():
    with pytest.raises(ValueError):
        to_json_bytes({"speedup": float("nan")})


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB")]
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.87), (0.0, 1e-3), (5.0, 5.5), (-3.0, 120.0)])
def test_ticks_are_few_and_inside(low, high):
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9


def test_atomic_write_replaces_or_leaves(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, b"torn")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_folder_check_leaves_nothing(tmp_path):
    folder = ensure_writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not list(folder.iterdir())


def test_page_escapes_what_users_name():
    fit = {"best_epoch": 0, "loss": [1.0], "val_loss": [1.0], "val_accuracy": [0.5]}
    spread = {"mean": 0.5, "std": 0.0, "values": [0.5]}
    latency = {"median": 1.0, "minimum": 1.0, "p90": 1.0, "repeats": 1}
    run = {"seed": 0, "fold": 3, "float": 0.5, "simulated": 0.5, "packed": 0.5, "agreement": 1.0}
    report = {
        "interrupted": True,
        "dataset": {"name": "<b>odd</b>", "notes": "a & b"},
        "model": {"name": "gin", "num_layers": 2, "hidden_channels": 8},
        "method": {"name": "uniform", "bits": 1, "preset": "default"},
        "accuracy": {"float": spread, "simulated": spread, "packed": spread},
        "agreement": 1.0,
        "bits": {"average": 1.0, "average_with_scales": 1.1},
        "bytes": {"file": 1, "float_file": 2, "activations": 1, "float_activations": 9}
        | {"weights": 1, "float_weights": 4},
        "float_layers": {"<norm>": "BatchNorm1d"},
        "sites": [],
        "widths": {"histograms": [], "by_degree": []},
        "latency_ms": {"float": latency, "packed": latency, "packed_prepared": latency},
        "speedup": 1.0,
        "speedup_prepared": 1.0,
        "speedup_captured": None,
        "capture_refused": "torch's <op> asks",
        "train_seconds": 1.0,
        "runs": [{**run, "best_epoch": None, "epochs": 0}],
        "best_run": 0,
        "curves": {"float": fit},
        "versions": {"torch": "2"},
        "processor": "p",
        "threads": 1,
        "isa": "avx2",
        "command": "nodebits quantize --out '<x>'",
    }
    page = render_html(report)
    assert "&lt;norm&gt; (BatchNorm1d)" in page
    assert "<b>odd" not in page and "<x>" not in page and "a &amp; b" in page
    assert "torch&#x27;s &lt;op&gt; asks" in page
    assert "interrupted" in page and "1 bit" in page and "fold 3" in page
