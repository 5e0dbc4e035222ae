"""What an import brings along, how long it takes, and the library's own settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_files import scaled, write_model

from nodebits import lite

IMPORT = """
import sys, time
import numpy
start = time.process_time()
from nodebits.lite import load
model = load(sys.argv[1])
print(time.process_time() - start)
unwanted = {"torch", "torch_geometric", "scipy", "safetensors", "sklearn", "pandas"}
print(sorted(unwanted & set(sys.modules)))
"""


def test_an_import_costs_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", *scaled())
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(path)], capture_output=True, text=True, check=True
    )
    seconds, unwanted = done.stdout.splitlines()
    assert unwanted == "[]"
    assert float(seconds) < 0.1


def test_errors_are_known_by_both_names() -> None:
    assert issubclass(lite.errors.NodeIndexError, (lite.errors.NodebitsError, IndexError))
    try:
        from nodebits.core.errors import NodebitsError
    except ModuleNotFoundError:
        return  # nodebits-lite alone
    assert lite.errors.NodebitsError is NodebitsError


def test_instruction_sets_change_no_bit(tmp_path: Path) -> None:
    model = lite.load(write_model(tmp_path / "m", *scaled()))
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    before = lite.isa()
    available = [name for name, there in lite.isa_levels().items() if there]
    assert before in available and "scalar" in available
    results = []
    try:
        for name in available:
            lite.set_isa(name)
            assert lite.isa() == name
            results.append(model.predict(x))
    finally:
        lite.set_isa(before)
    assert all(np.array_equal(result, results[0]) for result in results)
    with pytest.raises(lite.errors.UnsupportedIsaError, match=r"'sse9'.*scalar"):
        lite.set_isa("sse9")


@pytest.mark.parametrize(
    ("value", "good"), [("scalar", True), ("reference", True), ("sse9", False)]
)
def test_the_environment_names_an_instruction_set(tmp_path: Path, value: str, good: bool) -> None:
    path = write_model(tmp_path / "m", *scaled())
    code = "import sys; from nodebits import lite; lite.load(sys.argv[1]); print(lite.isa())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "NODEBITS_ISA": value},
    )
    if good:
        assert done.stdout == "scalar\n", done.stderr
    else:
        assert "UnsupportedIsaError" in done.stderr and "sse9" in done.stderr
