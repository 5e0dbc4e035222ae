"""Kernels read and write nothing outside their buffers: forbidden pages stand on both sides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from operator_inputs import COMPILED

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")


def run(*args: str) -> subprocess.CompletedProcess[str]:
    program = Path(__file__).with_name("guard_pages.py")
    # Under the address sanitizer (make sanitize) too a forbidden page ends the program by a signal.
    options = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "handle_segv=0")))
    return subprocess.run(
        [sys.executable, str(program), *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ASAN_OPTIONS": options},
    )


# The widest level runs what the levels below share, tails of rows included; they take as long each.
@pytest.mark.parametrize(
    "isa", [*(pytest.param(one, marks=pytest.mark.slow) for one in COMPILED[:-1]), *COMPILED[-1:]]
)
def test_kernels_stay_inside(isa: str) -> None:
    done = run(isa)
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"{isa} left its buffers in: {last}\n{done.stderr[-2000:]}"
    assert "stayed inside" in last[0]


def test_the_guard_is_real() -> None:
    done = run(COMPILED[0], "trespass")
    assert done.returncode < 0  # ended by a signal
