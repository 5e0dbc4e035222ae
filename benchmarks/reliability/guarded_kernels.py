"""R9: every kernel on buffers between pages that may not be touched.

    python benchmarks/reliability/guarded_kernels.py

Runs ``tests/ops/guard_pages.py`` under each compiled level: buffers end, then begin, at a forbidden
page, and a kernel that leaves its buffers ends the process by a signal.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

from record import ROOT, Result, record

from nodebits import ops


def main() -> None:
    """Runs every level in a process of its own."""
    started = time.perf_counter()
    levels = [isa for isa in ops.available_isas() if isa != "reference"]
    program = str(ROOT / "tests" / "ops" / "guard_pages.py")
    cases = ended = 0
    for isa in levels:
        done = subprocess.run([sys.executable, program, isa], capture_output=True, text=True)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        counted = re.match(r"(\d+) cases stayed inside", last)
        print(isa, done.returncode, last, done.stderr[-1000:])
        if done.returncode or counted is None:
            ended += 1
        else:
            cases += 2 * int(counted[1])  # it counts those of one side
    record(
        Result(
            "R9",
            "Kernels stay inside their buffers",
            f"{cases:,} calls of all kernels under {', '.join(levels)} on buffers that end or "
            f"begin at a forbidden page: {ended} processes ended",
            cases,
            ended,
            False,
            "Fewer cases than R8 has, and no sentinels beside the pages.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
