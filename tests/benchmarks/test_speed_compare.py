"""Two builds in turns: who is timed when, and what the ratios say."""

from __future__ import annotations

from typing import Any

import pytest

import speed_compare


class Fake:
    """A worker whose calls take as long as it is told."""

    def __init__(self, name: str, seconds: list[float], log: list[str]) -> None:
        self.name, self.seconds, self.log = name, iter(seconds), log

    def send(self, value: Any) -> None:
        self.log.append(f"{self.name} {value}")

    def receive(self) -> list[float]:
        wall = next(self.seconds)
        return [wall, wall / 2]


def test_turns_and_ratios() -> None:
    log: list[str] = []
    workers: Any = {
        "before": Fake("before", [2.0, 1.0, 4.0, 2.0], log),
        "after": Fake("after", [3.0, 3.0, 1.5, 9.0], log),
    }
    (row,) = speed_compare.compare(workers, ["u4"], 4)
    assert log == [f"{who} u4" for who in ("before", "after", "after", "before") * 2]
    assert row["wall_ratio_min"] == 1.5 and row["wall_ratio_median"] == 1.5
    assert row["cpu_before_ms"] == 500.0 and row["wall_noise"] == 0.5
    assert speed_compare.render([row]).count("\n") == 2


def test_the_tree_before_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["speed_compare.py", "--", "aggregate"])
    with pytest.raises(SystemExit):
        speed_compare.parse()
