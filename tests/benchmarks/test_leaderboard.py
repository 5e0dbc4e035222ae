"""The leaderboard's grid runs as written, and its page says what the committed rows say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import leaderboard
import leaderboard_table
from nodebits.jobs.compare_rows import key_of, read_rows, write_rows
from nodebits.methods import method_names


def grid() -> dict:
    return tomllib.loads(leaderboard.GRID.read_text(encoding="utf-8"))


def keys() -> list[str]:
    parts = leaderboard.parts(grid(), Path("unused"), None)
    return [key_of(job) for part in parts for job in part.jobs()]


def test_grid_has_what_the_page_promises() -> None:
    parts = list(leaderboard.parts(grid(), Path("unused"), None))
    assert {part.seeds for part in parts} == {3} and len(grid()["data"]) >= 6
    assert all(part.bits == (8, 4, 2) for part in parts)
    for dataset in grid()["data"]:
        chosen = [c for part in parts if part.dataset == dataset for c in part.chosen()]
        assert len(set(chosen)) == len(chosen) >= 8
        assert set(method_names()) <= {method for method, _ in chosen}
    assert len(set(keys())) == len(keys())


def test_committed_rows_are_of_the_grid() -> None:
    rows = read_rows(leaderboard_table.RESULTS / "rows.jsonl")
    assert rows and {row["key"] for row in rows} <= set(keys())
    assert all(len(row["packed"]["values"]) >= 3 for row in rows if not row["error"])
    size = sum(path.stat().st_size for path in leaderboard_table.RESULTS.iterdir())
    assert size < 1 << 20


def test_page_and_files_hold_the_rows() -> None:
    rows = read_rows(leaderboard_table.RESULTS / "rows.jsonl")
    assert leaderboard_table.tables(rows) in leaderboard_table.PAGE.read_text(encoding="utf-8")
    page = leaderboard_table.PROMPTS_PAGE.read_text(encoding="utf-8")
    assert leaderboard_table.prompts(rows) in page and "→" in page
    text = (leaderboard_table.RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    assert text == leaderboard_table.leaderboard_markdown(rows)


def test_failed_rows_are_told() -> None:
    row = {
        "dataset": "Cora", "model": "gcn", "method": "uniform", "preset": "default", "bits": 4,
        "error": "ConfigError: no",
    }  # fmt: skip
    assert "failed: ConfigError" in leaderboard_table.tables([row])


def test_rows_of_another_machine_are_compared(tmp_path: Path) -> None:
    rows = read_rows(leaderboard_table.RESULTS / "rows.jsonl")
    write_rows(tmp_path / "rows.jsonl", rows)
    assert leaderboard_table.against(tmp_path) == []
    changed = {**rows[0], "packed": {**rows[0]["packed"], "values": [0.5, 0.5, 0.5]}}
    write_rows(tmp_path / "rows.jsonl", [changed, *rows[1:]])
    (text,) = leaderboard_table.against(tmp_path)
    assert rows[0]["dataset"] in text and "packed [0.5, 0.5, 0.5], committed" in text
