"""Every width of every kind of machine keeps its line, and no table mixes kinds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import forms as module

    yield module
    for name in ("forms", "forms_table", "propagate", "convs", "layer_table", "peers"):
        sys.modules.pop(name, None)


@pytest.fixture
def table(forms: Any) -> Any:
    import forms_table as module

    return module


def line(bits: int, ratio: float, **more: Any) -> dict[str, Any]:
    sizes = {"float_s": 1.0, "packed_s": 0.5, "float_mib": 10.0, "packed_mib": 2.0, "error": 0.01}
    told = {"layer": "GCN", "runs": "integer sum", "plan": True, "float_form": "CSR"}
    return {**told, "bits": bits, "ratio": ratio, "isa": "avx512", **sizes, **more}


def test_widths_and_machines_stay_apart(forms: Any, table: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    here = {"isa": "avx2", "processor": "P"}
    for one in (line(8, 5.0), line(4, 6.0), line(8, 2.0, **here), line(8, 3.0, **here)):
        forms.write(path, one)
    lines = forms.read(path)
    assert [(one["bits"], one["ratio"], forms.machine(one)) for one in lines] == [
        (8, 5.0, "avx512"),
        (4, 6.0, "avx512"),
        (8, 3.0, "P, avx2"),
    ]
    _, first, second = table.tables(lines).split("\n## ")
    assert first.startswith("avx512\n") and "At 8 bits 5.0" in first and "At 4 bits 6.0" in first
    assert second.startswith("P, avx2\n") and "At 8 bits 3.0" in second and "4 bits 6" not in second


def test_graphs_stay_apart(forms: Any, table: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for one in (line(8, 5.0), line(8, 2.0, graph=forms.REDDIT), line(8, 3.0, graph=forms.REDDIT)):
        forms.write(path, one)
    assert [one["ratio"] for one in forms.read(path)] == [5.0, 3.0]
    _, _, large = table.tables(forms.read(path)).split("\n## ")
    assert large.startswith("avx512, reddit-like\n")


def test_a_compiled_peer_is_told_where_there_is_one(forms: Any, table: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    beside = {"processor": "P", **forms.beside_compiled(0.5, 0.25)}
    for one in (line(8, 5.0), line(4, 6.0, **beside)):
        forms.write(path, one)
    _, without, with_it = table.tables(forms.read(path)).split("\n## ")
    assert "Beside the compiled" not in without
    assert "of 1 layers, at 4 bits 2.0 times" in with_it and "Below 4.0 of it:\nGCN." in with_it
