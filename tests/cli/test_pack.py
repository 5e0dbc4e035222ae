"""``nodebits pack`` of a matrix; of a model's features tests/cli/test_outputs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nodebits


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 6)))
    return tmp_path / "x.npy"


def test_matrix_is_packed(run: Any, matrix: Path) -> None:
    out = matrix.with_name("x.safetensors")
    done = run("pack", matrix, "--bits", "8", "--granularity", "row", "--out", out, "--json")
    assert done.code == 0 and done.json()["shape"] == [40, 6]
    features = nodebits.PackedFeatures(out)
    assert (features.bits, features.granularity) == (8, "row")
    assert float(abs(features[:].numpy() - np.load(matrix)).max()) < 0.03
    assert "exists" in run("pack", matrix, "--out", out).err
    again = run("pack", matrix, "--out", out, "--force", "--sample-rows", "5", "--chunk-rows", "7")
    assert "40 rows of 6 features" in again.out and "were clipped" in again.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--bits", "9"), "--bits"),
        (("--granularity", "node"), "one of tensor, column, row"),
        (("--dataset", "digits"), "matrix of its own"),
    ],
)
def test_bad_usage(run: Any, matrix: Path, more: tuple[str, ...], words: str) -> None:
    refused = run("pack", matrix, *more, "--out", matrix.with_name("y"))
    assert refused.code == 2 and words in " ".join(refused.err.split())


def test_no_such_file(run: Any, tmp_path: Path) -> None:
    refused = run("pack", tmp_path / "none.npy", "--out", tmp_path / "y")
    assert refused.code == 2 and "there is no file" in " ".join(refused.err.split())


def test_a_model_has_its_own_widths(run: Any, finished: Path, tmp_path: Path) -> None:
    refused = run("pack", finished / "model.safetensors", "--bits", "8", "--out", tmp_path / "x")
    assert refused.code == 2 and "is for a matrix" in " ".join(refused.err.split())


def test_not_finite(run: Any, matrix: Path) -> None:
    np.save(matrix, np.full((3, 2), np.nan))
    refused = run("pack", matrix, "--out", matrix.with_name("y"))
    assert refused.code == 1 and "row 0, column 0" in refused.err
    assert not matrix.with_name("y").exists()
