"""Lines of other kinds of machines stay, and no table mixes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def propagate(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import propagate as module

    yield module
    sys.modules.pop("propagate", None)


def line(layer: str, ratio: float, **more: str) -> dict[str, Any]:
    sizes = {"float_s": 1.0, "packed_s": 0.5, "float_mib": 10.0, "packed_mib": 2.0, "columns": 8}
    return {"layer": layer, "runs": "tiled", "ratio": ratio, "isa": "avx2", **sizes, **more}


def test_a_line_takes_the_place_of_its_own_kind(propagate: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for one in (
        line("A", 2.0),
        line("B", 3.0),
        line("A", 8.0, processor="P"),
        line("A", 4.0, processor="P"),
        line("A", 5.0),
    ):
        propagate.write(path, one)
    lines = propagate.read(path)
    assert [(one["layer"], one["ratio"], propagate.machine(one)) for one in lines] == [
        ("A", 5.0, "avx2"),
        ("B", 3.0, "avx2"),
        ("A", 4.0, "P, avx2"),
    ]
    text = propagate.tables(lines)
    assert text.index("## avx2") < text.index("2 layers") < text.index("## P, avx2")
    assert "1 layers; geometric means: 4.00" in text
