"""The benchmark of samples, on a small graph."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import sampled


@pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning")
@pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning")
def test_every_part_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NODEBITS_CACHE", str(tmp_path))
    monkeypatch.setattr(sampled, "SAMPLERS", False)
    options = argparse.Namespace(
        graph="random:2000:9000", hidden=8, bits=4, seeds=4, fanouts=[3, 2], batches=2, repeats=1,
        threads=1,
    )  # fmt: skip
    found = sampled.measure(options)
    assert set(found["rows"]) >= {sampled.PACKED, sampled.FLOAT, "sampling", "rows, packed"}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in found["rows"].values())
    rows = {name: {"p50_ms": 2.0, "p95_ms": 3.0} for name in found["rows"]}
    rows[sampled.PEER] = {"p50_ms": 9.0, "p95_ms": 9.0}
    text = sampled.table({**found, "rows": rows})
    assert f"| {sampled.PACKED} | 2.000 | 3.000 | 4.5 |" in text
    assert "| sampling | 2.000 | 3.000 |  |" in text
