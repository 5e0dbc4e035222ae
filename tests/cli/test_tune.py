"""``nodebits tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits.bench.tuning import run as tuning
from nodebits.ops.backends.triton.tiles import Key, candidates
from nodebits.ops.backends.triton.tuned import Choice
from nodebits.ops.backends.triton.tuning import Tuned

KEY = Key("softmax", (4,))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_it_ends_with_a_sentence(run: Any) -> None:
    found = run("tune", "--device", "cuda")
    assert found.code == 2 and "torch finds no CUDA device" in found.err and not found.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], ["device", "cuda", "cpu"]),
        (["--columns", "a"], ["--columns", "a"]),
        (["--nodes", "0"], ["nodes", "0"]),
    ],
)
def test_bad_values_are_named(run: Any, arguments: list[str], words: list[str]) -> None:
    found = run("tune", *arguments)
    assert found.code == 2 and all(word in found.err for word in words)


def test_it_prints_what_was_found(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = candidates(KEY)[1]
    one = Tuned("softmax of edges", Choice(KEY, sizes, 0.5, 1.0), 7, [])
    asked: list[Any] = []

    def measured(settings: Any, progress: Any) -> tuning.Tuning:
        asked.append(settings)
        return tuning.Tuning("Some Card", tmp_path / "tiles.json", [one])

    monkeypatch.setattr(tuning, "run_tuning", measured)
    arguments = "--nodes", "50", "--columns", "8,16", "--bits", "4,2", "--cache", tmp_path
    found = run("tune", *arguments)
    assert found.code == 0 and "softmax" in found.out and "0.5000" in found.out, found.err
    assert asked[0].columns == (8, 16) and asked[0].bits == (4, 2) and asked[0].cache == tmp_path
    rows = run("tune", *arguments, "--json").json()["rows"]
    assert rows[0]["sizes"] == sizes and rows[0]["tried"] == 7
