"""A task of the pool that fails: its exception reaches the caller, and the pool goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.skipif(
    COMPILER is None or sys.platform == "win32", reason="needs a C++ compiler of a Unix"
)
def test_failures_on_any_thread_reach_the_caller(tmp_path: Path) -> None:
    program = tmp_path / "pool_failures"
    sources = [str(HERE / "pool_failures.cpp"), str(CSRC / "run" / "pool.cpp")]
    command = [str(COMPILER), "-std=gnu++20", "-O1", "-pthread", f"-I{CSRC}", "-o", str(program)]
    subprocess.run([*command, *sources], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
