"""One line per measured promise in ``benchmarks/results/reliability.jsonl``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nodebits import ops
from nodebits.bench.environment import processor_name, versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.jsonl"
# The tests' models and operator inputs serve here too, with the layers of another package.
FOLDERS = ("tests", "tests/ops", "examples/nodebits-smoothness/src")
TEST_FOLDERS = [str(ROOT / folder) for folder in FOLDERS]
sys.path[1:1] = TEST_FOLDERS


@dataclass(frozen=True)
class Result:
    """What one run found.

    Attributes:
        promise: ``R1`` to ``R18``, and ``S1`` to ``S9`` of what is beyond one machine or moment.
        title: The promise in a few words.
        figure: What was found, in a few words, with its counts.
        count: Number of cases behind it.
        failures: Number of cases that broke the promise.
        reached: Whether the target of the scale is reached in full.
        missing: What of the target was not tried or not reached, empty if nothing.
    """

    promise: str
    title: str
    figure: str
    count: int
    failures: int
    reached: bool
    missing: str = ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def record(result: Result, started: float) -> None:
    """Prints a result and appends it; ends the program with 1 where the promise is broken.

    Args:
        result: What was found.
        started: ``time.perf_counter()`` at the beginning.
    """
    commit = _git("describe", "--always")
    # The rows of before are no change of what is measured.
    others = f":!{RESULTS.relative_to(ROOT)}"
    if _git("status", "--porcelain", "--untracked-files=no", "--", ".", others):
        commit += "-dirty"
    line = {
        **asdict(result),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "isas": list(ops.available_isas()),
        },
        "versions": versions(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "commit": commit,
    }
    text = json.dumps(line)
    print(text)
    with RESULTS.open("a") as stream:
        stream.write(text + "\n")
    if result.failures:
        sys.exit(1)
