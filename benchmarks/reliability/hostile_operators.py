"""R9: operators called with wrong arguments, under the address and undefined-behaviour sanitizers.

    make sanitize
    python benchmarks/reliability/hostile_operators.py [calls]

Valid calls of every registered operator get one to three faults each. Every call runs on the
reference and on a compiled level and must end by a typed error, or by the reference's result.
Each process runs some thousand calls from a seed of its own; one that a sanitizer or a signal ends
is a failure, and so is one that stands still.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from record import ROOT, Result, record

from hostile import HostileCalls  # isort: skip  found by way of record

SANITIZED = ROOT / "build" / "sanitize"
CALLS = 200_000
PER_PROCESS = 5_000
LONGEST_S = 1800


def calls_of(seed: int, count: int) -> None:
    """The work of one process: prints what it found."""
    warnings.simplefilter("ignore")
    run = HostileCalls(seed)
    for _ in range(count):
        run.try_one()
    for line in run.failures[:5]:
        print(line, file=sys.stderr)
    print(json.dumps({"failures": len(run.failures), "found": run.found}))


def sanitizer_runtimes() -> str:
    """Paths of the runtimes that must be loaded before the interpreter."""
    compiler = os.environ.get("CXX", "c++")
    names = ("libasan.so", "libubsan.so")
    return " ".join(
        subprocess.check_output([compiler, f"-print-file-name={n}"], text=True).strip()
        for n in names
    )


def main() -> None:
    """Runs process after process."""
    if sys.argv[1:2] == ["process"]:
        calls_of(int(sys.argv[2]), int(sys.argv[3]))
        return
    started = time.perf_counter()
    extension = next(SANITIZED.glob("_kernels*.so"), None)
    if extension is None:
        raise SystemExit("no build with sanitizers: run `make sanitize` first")
    wanted = int(sys.argv[1]) if sys.argv[1:] else CALLS
    options = "detect_leaks=0:allocator_may_return_null=1"
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer_runtimes(),
        "ASAN_OPTIONS": options,
        "OMP_NUM_THREADS": "1",
    }
    runner = str(ROOT / "tests" / "with_kernels.py")
    found: Counter[str] = Counter()
    seed = failures = ended = 0
    while seed * PER_PROCESS < wanted:
        count = min(PER_PROCESS, wanted - seed * PER_PROCESS)
        command = [sys.executable, runner, str(extension), str(Path(__file__).resolve())]
        done = subprocess.run(
            [*command, "process", str(seed), str(count)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        if done.returncode:
            ended += 1
            print(f"seed {seed} ended by {done.returncode}: {done.stderr[-3000:]}")
        else:
            line = json.loads(done.stdout.strip().splitlines()[-1])
            failures += line["failures"]
            found.update(line["found"])
            print(f"seed {seed}: {line['failures']} failures", done.stderr[-1500:])
        seed += 1
    results = sum(n for what, n in found.items() if what.endswith(": result"))
    refused = found.total() - results
    record(
        Result(
            "R9",
            "Wrong arguments of operators",
            f"{wanted:,} faulty calls of all operators, each on the reference and a compiled "
            f"level, under the sanitizers: {results:,} results, {refused:,} typed errors, "
            f"{failures} other errors or other results, {ended} processes ended",
            found.total(),
            failures + ended,
            not failures and not ended and wanted >= CALLS,
            "" if wanted >= CALLS else f"fewer than {CALLS:,} calls",
        ),
        started,
    )


if __name__ == "__main__":
    main()
