"""R18: opening, running and closing models keeps no memory.

python benchmarks/reliability/leaks.py [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from record import Result, record

from nodebits import load

from packed_models import make_case  # isort: skip  found by way of record

WARM_UP = 300
SECONDS = 60
LIMIT = 1 << 20


def resident() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    """Opens, runs and closes until the time is over."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    case = make_case("gcn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        case.packed.save(path)
        wrong = rounds = 0
        most = int(sys.argv[1]) if sys.argv[1:] else sys.maxsize
        before, began = 0, time.monotonic()
        while rounds < most and time.monotonic() - began < SECONDS:
            if rounds == WARM_UP:
                before = resident()
            result = load(path).predict(case.x, case.edge_index.clone())
            wrong += int(not torch.equal(result, case.simulated))
            rounds += 1
        growth = resident() - before
    counted = rounds - WARM_UP
    record(
        Result(
            "R18",
            "No leaks",
            f"{counted:,} rounds of open, predict and close in {SECONDS} s: resident memory grew "
            f"by {growth / 2**10:,.0f} KiB, {wrong} wrong results",
            counted,
            wrong + int(growth >= LIMIT),
            False,
            "The scale asks for a million rounds; the number here is what a minute allows.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
