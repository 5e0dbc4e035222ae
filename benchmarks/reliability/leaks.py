"""R18: opening, running and closing models keeps no memory.

python benchmarks/reliability/leaks.py [seconds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from record import Result, record
from torch_geometric.nn import GCNConv

from nodebits import UniformConfig, calibrate, convert, load, prepare

WARM_UP = 300
SECONDS = 60
LIMIT = 1 << 20
WANTED = 1_000_000


def resident() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    """Opens, runs and closes until the time is over."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, edge_index = torch.randn(4, 2), torch.tensor([[0, 1, 2], [1, 2, 3]])
    # The smallest model there is makes the most rounds.
    prepared = prepare(GCNConv(2, 2), UniformConfig(bits=8, mode="ptq")).eval()
    calibrate(prepared, x, edge_index)
    packed = convert(prepared)
    expected = packed.predict(x, edge_index)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        packed.save(path)
        wrong, counted = 0, -WARM_UP
        seconds = float(sys.argv[1]) if sys.argv[1:] else SECONDS
        before, began = 0, time.monotonic()
        while counted < 0 or time.monotonic() - began < seconds:
            if counted == 0:
                before, began = resident(), time.monotonic()
            result = load(path, model=GCNConv(2, 2)).predict(x, edge_index.clone())
            wrong += int(not torch.equal(result, expected))
            counted += 1
        growth = resident() - before
    record(
        Result(
            "R18",
            "No leaks",
            f"{counted:,} rounds of open, predict and close in {seconds:.0f} s: resident memory "
            f"grew by {growth / 2**10:,.0f} KiB, {wrong} wrong results",
            counted,
            wrong + int(growth >= LIMIT),
            counted >= WANTED and not wrong and growth < LIMIT,
            "" if counted >= WANTED else f"Fewer than {WANTED:,} rounds.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
