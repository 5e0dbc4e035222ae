from __future__ import annotations

from pathlib import Path

import speed_table
from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport, SpeedSettings


def test_rows_and_skips_and_slopes():
    done = Row("growth", "random:20:1000", "ours", "nodebits", 4, 2, median_s=0.5, spread=0.01)
    done.ratio_best_float32, done.peak_mib = 3.0, 7.4
    more = Row("growth", "random:40:2000", "ours", "nodebits", 4, 2, median_s=1.0, spread=0.01)
    left_out = Row("growth", "random:20:1000", "PyG", "float32", 32, 2, note="skipped: too large")
    report = SpeedReport(SpeedSettings("growth"), [done, more, left_out])
    versions = {"torch": "2"}
    report.environment = {
        "other_load": 0.0,
        "processor": "P",
        "cores": 2,
        "isa": "scalar",
        "versions": versions,
    }
    report.bandwidth = {2: {"read": 2e10, "triad": 1e10}}
    text = speed_table.table_of(report.to_json("nodebits bench growth"))
    assert "| ours, 1,000 edges | 500.00 ± 5.00 |  | 3.00 |  | 7 |" in text
    assert "PyG: skipped: too large" in text and "20.0 GB/s read" in text
    assert "| ours | 1.000 |" in text


def test_the_documentation_shows_what_was_measured():
    page = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
    assert speed_table.short_table() in page.read_text(encoding="utf-8")
