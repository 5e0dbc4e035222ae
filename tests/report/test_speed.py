"""Pictures of speed measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport, SpeedSettings
from nodebits.core.errors import ConfigError
from nodebits.report.speed import plot_report


def report(what: str, seconds: float | None) -> SpeedReport:
    rows = [Row(what, f"random:9:{n}", "an", "float32", 32, 1, seconds) for n in (20, 90)]
    return SpeedReport(SpeedSettings(what), rows)


@pytest.mark.parametrize("what", ["aggregate", "growth"])
def test_drawn(what: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    plot_report(report(what, 0.25), path)
    assert path.read_text().startswith("<?xml")


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        plot_report(report("aggregate", 0.25), tmp_path / "picture.doc")
    with pytest.raises(ConfigError, match="nothing was measured"):
        plot_report(report("aggregate", None), tmp_path / "picture.svg")
