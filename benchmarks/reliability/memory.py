"""R16: where memory runs out a forward ends by ``MemoryError``, and the model works afterwards.

    python benchmarks/reliability/memory.py

A process limits its address space to what it has plus one step more each time, until the forward
passes: each step lets one more allocation succeed, torch's and those of the kernels alike.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from record import Result, record

from packed_models import make_case  # isort: skip  found by way of record

NODES = 100_000
STEP = 1 << 20
MOST = 400
MODELS = ("gcn", "gin", "sage", "gat")


def limited(name: str) -> dict[str, int]:
    """What happens at every limit."""
    torch.set_num_threads(1)
    case = make_case(name)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(NODES, case.x.size(1), generator=g)
    edges = torch.randint(0, NODES, (2, 2 * NODES), generator=g)
    small = case.packed.predict(case.x, case.edge_index)
    expected = case.packed.predict(x, edges.clone())
    found: Counter[str] = Counter()
    for step in range(MOST):
        copy = edges.clone()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + step * STEP, unlimited[1]))
        result = None
        try:
            result = case.packed.predict(x, copy)
            what = "passed"
        except BaseException as error:
            what = type(error).__name__ if isinstance(error, MemoryError) else "other error"
            print(what, str(error)[:150].replace("\n", " "), file=sys.stderr)
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
        found[what] += 1
        again = case.packed.predict(case.x, case.edge_index)
        found["wrong"] += int(not torch.equal(again, small))
        if result is not None:
            found["wrong"] += int(not torch.equal(result, expected))
            break
    return dict(found)


def main() -> None:
    """Runs every model in a process of its own."""
    if sys.argv[1:2] == ["process"]:
        print(json.dumps(limited(sys.argv[2])))
        return
    started = time.perf_counter()
    found: Counter[str] = Counter()
    for name in MODELS:
        command = [sys.executable, __file__, "process", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            found["ended process"] += 1
            print(name, done.returncode, done.stderr[-600:])
            continue
        print(name, done.stdout.strip(), done.stderr[-300:])
        found.update(json.loads(done.stdout))
    passed = found["passed"]
    refused = sum(n for what, n in found.items() if what.endswith("MemoryError"))
    failures = found["other error"] + found["wrong"] + found["ended process"]
    record(
        Result(
            "R16",
            "A limit on memory",
            f"{len(MODELS)} models, limits of the address space in steps of 1 MiB until the "
            f"forward passes ({passed} did): {refused} MemoryError, {found['other error']} other "
            f"errors, {found['wrong']} wrong results afterwards, {found['ended process']} processes"
            " ended",
            refused + passed + found["other error"],
            failures,
            not failures,
        ),
        started,
    )


if __name__ == "__main__":
    main()
