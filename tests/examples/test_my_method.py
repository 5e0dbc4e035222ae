"""The method that the documentation walks through, installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from example_packages import EXAMPLES

from .conftest import Run


def test_it_is_short() -> None:
    lines = (EXAMPLES / "my_method" / "my_method.py").read_text(encoding="utf-8").split("\n")
    assert len([line for line in lines if line.strip()]) <= 25


def test_it_is_listed_has_an_option_and_runs(nodebits: Run, tmp_path: Path) -> None:
    listed = json.loads(nodebits("methods", "--json").stdout)
    assert listed["first-wide"].startswith("Uniform quantization with a wider first layer")
    job = ["quantize", "--method", "first-wide", "--bits", "4", "--epochs", "2", "--hidden", "8"]
    job += ["--latency-repeats", "1", "--no-progress", "--json", "--out", str(tmp_path / "x")]
    refused = nodebits(*job, "--first-factor", "9")
    assert refused.returncode == 2 and "--first-factor" in refused.stderr
    done = nodebits(*job, "--first-factor", "1.5")
    assert done.returncode == 0, done.stderr
    widths = {
        (site["layer"], site["site"]): site["bits"] for site in json.loads(done.stdout)["sites"]
    }
    assert widths["convs.0.lin", "weight"] == 6 and widths["convs.1.lin", "weight"] == 4


@pytest.mark.slow
def test_it_takes_part_in_a_comparison(nodebits: Run, tmp_path: Path) -> None:
    out = tmp_path / "x"
    job = ["compare", "--methods", "first-wide,uniform", "--bits", "4", "--epochs", "2"]
    job += ["--hidden", "8", "--latency-repeats", "1", "--no-progress", "--out", str(out)]
    done = nodebits(*job)
    assert done.returncode == 0, done.stderr
    assert "first-wide" in (out / "leaderboard.md").read_text(encoding="utf-8")
