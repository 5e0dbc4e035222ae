"""A package of another's, installed: what it adds is listed, has options, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run


@pytest.mark.parametrize(
    ("command", "name", "line"),
    [
        ("methods", "half-weights", "Weights of a share of the width"),
        ("models", "sgc", "A linear map and sums"),
        ("tasks", "node-balanced", "One class per node, rare ones"),
        ("datasets", "rings", "3 rings"),
    ],
)
def test_it_is_listed(nodebits: Run, command: str, name: str, line: str) -> None:
    result = nodebits(command, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[name].startswith(line)


def test_its_options_are_checked_and_it_runs(nodebits: Run, bare: Run, tmp_path: Path) -> None:
    job = ["quantize", "--dataset", "rings", "--model", "sgc", "--method", "half-weights"]
    job += ["--bits", "4", "--epochs", "20", "--latency-repeats", "1", "--no-progress", "--json"]
    refused = nodebits(*job, "--out", tmp_path / "x", "--weight-share", "1.5")
    assert refused.returncode == 2 and "--weight-share" in refused.stderr
    done = nodebits(*job, "--out", tmp_path / "x", "--weight-share", "0.5")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    widths = {site["site"]: site["bits"] for site in report["sites"]}
    assert (widths["weight"], widths["input"], widths["message_0"]) == (2, 4, 4)
    assert report["accuracy"]["packed"]["mean"] > 0.5 and report["agreement"] == 1.0
    # The file names the model: with the package it is read, without it the name is refused.
    file = tmp_path / "x" / "model.safetensors"
    assert nodebits("evaluate", file, "--json").returncode == 0
    without = bare("evaluate", file)
    assert without.returncode == 1 and "unknown model 'sgc'" in without.stderr


def test_its_task_is_trained_measured_and_kept_in_the_file(
    nodebits: Run, bare: Run, tmp_path: Path
) -> None:
    job = ["quantize", "--dataset", "rings", "--task", "node-balanced", "--epochs", "20"]
    job += ["--latency-repeats", "1", "--no-progress", "--json", "--out", str(tmp_path / "x")]
    done = nodebits(*job)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    packed = report["balanced_accuracy"]["packed"]["mean"]
    assert report["metric"]["title"] == "balanced accuracy" and packed > 0.5
    file = tmp_path / "x" / "model.safetensors"
    found = json.loads(nodebits("evaluate", file, "--json").stdout)
    assert found["test"]["balanced_accuracy"] == packed
    without = bare("quantize", *job[1:])
    assert without.returncode == 2 and "unknown task 'node-balanced'" in without.stderr
