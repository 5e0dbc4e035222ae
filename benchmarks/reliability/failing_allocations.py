"""R16: the n-th allocation of a forward fails, for every n.

    python benchmarks/reliability/failing_allocations.py [least bytes]

A library that is loaded ahead of C's refuses one request of memory, or all from one on: of torch,
the kernels, their threads and Python alike. The forward must end by ``OutOfMemoryError`` or do
without; the next one must give the result of before.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import torch
from record import Result, record

from nodebits.core.errors import OutOfMemoryError
from nodebits.engine.recording import recording

from packed_models import make_case  # isort: skip  found by way of record
from preload.build import preloaded  # isort: skip

MODELS = ("gcn", "gin", "sage", "gat", "appnp")
NODES = 6000  # enough for two threads to share the work
LEAST = 4096
KEPT = 4 << 20  # what heaps may keep


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def failed_one_by_one(name: str, threads: int, least: int) -> Counter[str]:
    """Refuses the first request, then the second and so on until the forward makes no more."""
    libc = ctypes.CDLL(None)
    torch.set_num_threads(1)
    case = make_case(name)
    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(NODES, case.x.size(1), generator=g)
    edges = torch.randint(0, NODES, (2, NODES), generator=g)
    expected = case.packed.predict(x, edges.clone())
    found: Counter[str] = Counter()
    before = 0
    # Forwards that a plan runs, and those of the module, which are watched.
    for rest, watch in itertools.product((0, 1, 0), (False, True)):
        n = 0
        made = sys.maxsize
        while n < made:
            n += 1
            fresh, result = edges.clone(), None
            libc.fail_memory(ctypes.c_size_t(least), ctypes.c_long(n), rest)
            try:
                with recording() if watch else nullcontext():
                    result = case.packed.predict(x, fresh)
                what = "done without"
            except OutOfMemoryError:
                what = "OutOfMemoryError"
            except BaseException as error:
                what = "other error"
                other = error
            made = libc.end_memory()
            if what == "other error":
                print(n, rest, repr(other)[:300], file=sys.stderr)
            found[what] += int(n <= made)
            after = case.packed.predict(x, edges.clone())
            for given in (result, after):
                found["wrong"] += int(given is not None and not torch.equal(given, expected))
            if result is None:
                made = sys.maxsize  # it ended early: how many there are is not known yet
        if watch:
            before = before or resident()  # the first time heaps and caches grow
    found["leaks"] += int(resident() - before > KEPT)
    return found


def main() -> None:
    """Runs every model in a process of its own, since one might end."""
    if sys.argv[1:2] == ["process"]:
        name, threads, least = sys.argv[2:]
        print(json.dumps(failed_one_by_one(name, int(threads), int(least))))
        return
    started = time.perf_counter()
    least = sys.argv[1] if sys.argv[1:] else str(LEAST)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        environment = preloaded("failing_memory", Path(folder))
        for name in MODELS:
            for threads in ("1", "2"):
                command = [sys.executable, __file__, "process", name, threads, least]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                print(name, threads, done.returncode, done.stdout.strip(), done.stderr[-600:])
                if done.returncode:
                    found["ended"] += 1
                    continue
                found.update(json.loads(done.stdout))
    failures = found["other error"] + found["wrong"] + found["ended"] + found["leaks"]
    record(
        Result(
            "R16",
            "The n-th allocation fails",
            f"{len(MODELS)} models on 1 and 2 threads, each allocation from {least} bytes on, "
            f"alone and with all after it: {found['OutOfMemoryError']:,} OutOfMemoryError, "
            f"{found['other error']} other errors, {found['wrong']} wrong results, "
            f"{found['ended']} processes ended, {found['leaks']} leaks",
            found["OutOfMemoryError"] + found["done without"] + found["other error"],
            failures,
            not failures,
            f"Allocations below {least} bytes are left alone.",
        ),
        started,
    )


if __name__ == "__main__":
    main()
