"""R4: a save that is killed leaves the old file or the new one.

    python benchmarks/reliability/killed_saves.py

A child that replaces one model file by another is ended by ``SIGKILL``: once before and once after
every system call it makes, by way of ptrace, and then at random moments. The file must then equal
one of the two, byte for byte. Power loss is another matter, which this does not try.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from record import Result, record

from nodebits.runtime import PackedModel

from packed_models import make_case  # isort: skip  found by way of record

RANDOM_KILLS = 1000
LONGEST_WAIT_S = 0.005  # some saves
_LIBC = ctypes.CDLL(None, use_errno=True)
_TRACE_ME, _SYSTEM_CALL = 0, 24


def child(work: Callable[[], None], traced: bool = False) -> int:
    """Forks a process that does ``work`` and ends; returns its number."""
    number = os.fork()
    if number == 0:
        if traced:
            _LIBC.ptrace(_TRACE_ME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
        work()
        os._exit(0)
    return number


def killed_at_stop(work: Callable[[], None], stop: int) -> bool:
    """Kills a child where it enters or leaves a system call for the n-th time.

    Returns:
        Whether there was such a call; otherwise the work was done.
    """
    number = child(work, traced=True)
    os.waitpid(number, 0)
    for _ in range(stop):
        if _LIBC.ptrace(_SYSTEM_CALL, number, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
        if os.WIFEXITED(os.waitpid(number, 0)[1]):
            return False
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def killed_later(work: Callable[[Callable[[], object]], None], seconds: float) -> None:
    """Kills a child some time after it said that it is at work."""
    ready, said = os.pipe()
    number = child(lambda: work(lambda: os.write(said, b"x")))
    os.read(ready, 1)
    os.close(ready)
    os.close(said)
    time.sleep(seconds)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def main() -> None:
    """Kills saves and looks at what they left."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    models: list[PackedModel] = [make_case("gcn", bits=bits).packed for bits in (8, 4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        contents = []
        for model in models:
            model.save(path)
            contents.append(path.read_bytes())
        found: Counter[str] = Counter()

        def look() -> None:
            left = path.read_bytes() if path.exists() else b""
            found["old" if left == contents[1] else "new" if left == contents[0] else "torn"] += 1
            for other in Path(folder).iterdir():
                if other != path:
                    other.unlink()

        stops = 0
        while killed_at_stop(lambda: models[0].save(path), stops + 1):
            stops += 1
            look()
            path.write_bytes(contents[1])
        at_calls, rng = dict(found), random.Random(0)

        def forever(at_work: Callable[[], object]) -> None:
            models[0].save(path)
            at_work()
            while True:
                models[1].save(path)
                models[0].save(path)

        for _ in range(RANDOM_KILLS):
            killed_later(forever, rng.uniform(0, LONGEST_WAIT_S))
            look()
    print("at system calls", at_calls, "in all", dict(found))
    record(
        Result(
            "R4",
            "A save is all or nothing",
            f"killed before and after each of {stops // 2} system calls and at {RANDOM_KILLS:,} "
            f"random moments: {found['old']:,} times one whole file, {found['new']:,} times the "
            f"other, {found['torn']} torn",
            stops + RANDOM_KILLS,
            found["torn"],
            not found["torn"],
        ),
        started,
    )


if __name__ == "__main__":
    main()
