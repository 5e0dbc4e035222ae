"""Memory that runs out anywhere in a forward, also on a thread of the pool, is a typed error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preload.build import compiler, preloaded

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reliability" / "failing_allocations.py"
LEAST = "4096"  # the rows that a task of the kernels works on


@pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
def test_every_allocation_of_a_forward_may_fail(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "process", "gcn", "2", LEAST],
        env=preloaded("failing_memory", tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]  # the process lives
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("OutOfMemoryError") > 30
    found.pop("done without")
    assert not any(found.values()), (found, done.stderr[-2000:])
