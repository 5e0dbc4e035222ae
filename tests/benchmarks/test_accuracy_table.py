from __future__ import annotations

import accuracy
import accuracy_table


def test_table_sets_mean_and_published_side_by_side():
    figures = {"float": 0.82, "float_distilled": 0.83, "simulated": 0.81, "agreement": 1.0}
    row = {
        "dataset": "Cora",
        "model": "gcn",
        "method": "degree-quant",
        "preset": "default",
        "bits": 4,
        "fold": None,
        "average_bits": 4.0,
        **figures,
    }
    rows = [{**row, "packed": 0.80, "seed": 0}, {**row, "packed": 0.82, "seed": 1}]
    line = accuracy_table.render(rows).splitlines()[-1]
    assert "**81.0 ± 1.4**" in line and "78.3 ± 1.7" in line and "81.4 ± 0.7" in line


def test_other_settings_stand_apart():
    row = {"dataset": "Cora", "model": "gcn", "method": "uniform", "preset": "default", "bits": 2}
    figures = {"float": 0.82, "float_distilled": 0.83, "simulated": 0.81, "agreement": 1.0}
    row = {**row, **figures, "fold": None, "average_bits": 2.0, "seed": 0}
    other = {"label": "weights-4", "overrides": {"weight_bits": 4}}
    rows = [{**row, "packed": 0.80}, {**row, "packed": 0.82, **other}]
    usual, _, apart = accuracy_table.render(rows).partition("## `--set weight_bits=4`")
    assert "**80.0**" in usual and "82.0" not in usual.partition("**80.0**")[2]
    assert "**82.0**" in apart and "80.0" not in apart


def test_summary_says_where_runs_are_missing():
    figures = {"float": 0.82, "float_distilled": 0.83, "packed": 0.8, "preset": "default"}
    row = {"dataset": "Cora", "model": "gcn", **figures}
    rows = [
        *({**row, "method": "degree-quant", "bits": 8} for _ in range(2)),
        {**row, "method": "uniform", "bits": 2},
    ]
    line = accuracy_table.summarize(rows).splitlines()[-1]
    assert line.endswith("| 78.3 | **80.0 (1)** | 2 |") and "| 82.0 ± 0.0 |" in line


def test_rows_are_read_back(tmp_path):
    script = accuracy
    path = tmp_path / "rows.jsonl"
    script.append_row(path, {"key": "a"})
    script.append_row(path, {"key": "b"})
    assert [row["key"] for row in script.read_rows(path)] == ["a", "b"]
    assert script.read_rows(tmp_path / "none") == []
