"""``nodebits tune``: what it measures and writes; the timer is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nodebits.bench.tuning import run as tuning
from nodebits.bench.tuning.calls import calls_of
from nodebits.bench.tuning.settings import Tune
from nodebits.core.errors import ConfigError
from nodebits.ops.backends.triton import choice, tuned
from nodebits.ops.backends.triton.launch import sizes_of
from nodebits.ops.backends.triton.tiles import Key, candidates

SMALL = {"nodes": 12, "degree": 3, "columns": (8,), "bits": (4,)}
CARD = "Some Card, capability 9.0, triton 3.7.1"
KEY = Key("softmax", (4,))


def test_calls_run_anywhere_and_have_names() -> None:
    made = calls_of(Tune(**SMALL), torch.device("cpu"))
    assert "weighted sum, 8 columns, 4 bits" in made and "softmax of edges" in made
    for call in made.values():
        call()
    some = calls_of(Tune(**SMALL, only=("softmax",)), torch.device("cpu"))
    assert list(some) == ["softmax of edges"]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(choice, "device_problem", lambda: None)
    monkeypatch.setattr(tuned, "card", lambda: CARD)


def test_what_was_found_is_written(card: None, tmp_path: Path) -> None:
    chosen: list[Any] = []

    def call() -> torch.Tensor:
        chosen.append(sizes_of("softmax", 4))
        return torch.ones(1)

    def timer(call: Any) -> float:
        call()
        return float(chosen[-1]["EDGES"])

    made = tuning.run_tuning(Tune(**SMALL, cache=tmp_path), None, timer, {"own": call})
    assert made.path == tmp_path / "tiles.json" and made.card == CARD
    (one,) = tuned.read(made.path)[CARD]
    assert one.key == KEY and one.sizes["EDGES"] == 8 and one.sizes in candidates(KEY)
    (row,) = made.to_json()["rows"]
    assert row["call"] == "own" and row["sizes"] == one.sizes and str(tmp_path) not in str(row)


def test_names_that_no_call_has(card: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no call has magic in its name"):
        tuning.run_tuning(Tune(**SMALL, cache=tmp_path, only=("magic",)), calls={})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on a CUDA device: torch finds no CUDA device"):
        tuning.run_tuning(Tune(**SMALL, cache=tmp_path))
    assert not list(tmp_path.iterdir())
