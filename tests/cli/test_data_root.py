"""A data folder that is not there is refused before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from nodebits.cli import main
try:
    main()
except SystemExit as stop:
    print("torch" in sys.modules, stop.code)
"""


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    options = ["--dataset", "Cora", "--data-root", tmp_path / "nowhere", "--out", tmp_path / "out"]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, "quantize", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.stdout.split() == ["False", "2"]
    assert "nowhere does not exist" in run.stderr and "--data-root" in run.stderr
