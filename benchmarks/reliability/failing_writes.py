"""R15: a write that fails leaves the old file and nothing else, and says which file it was.

    python benchmarks/reliability/failing_writes.py

A library that is loaded ahead of C's makes the n-th call fail that opens, writes, syncs, renames
or changes a file, for every n and four reasons. The system itself refuses by a limit on the size
of files. A failure once the new file is in place is none: it was written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from record import Result, record

from nodebits.cli.app import main as nodebits_command
from nodebits.core.errors import OutputError
from nodebits.train.checkpoint import save_checkpoint

from packed_models import make_case  # isort: skip  found by way of record
from preload.build import preloaded  # isort: skip

REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EFBIG)
OLD = b"what was there before"
Writer = Callable[[Path], object]


def writers(folder: Path) -> dict[str, Writer]:
    """What writes a file, by the file's name."""
    case = make_case("gcn")
    features = case.packed.pack_input(case.x)
    quiet = ["--no-progress", "--threads", "1", "--latency-repeats", "1", "--hidden", "8"]
    command("quantize", "--out", folder / "job", "--seeds", "1", "--epochs", "2", *quiet)
    model = folder / "job" / "model.safetensors"

    def predict(path: Path) -> None:
        command("predict", model, "--out", path, "--force")

    return {
        "model.safetensors": case.packed.save,
        "features.safetensors": lambda path: case.packed.save_input(features, path),
        "checkpoint": lambda path: save_checkpoint(path, "run", {"weights": [case.x], "epoch": 3}),
        "classes.csv": predict,
    }


def command(*arguments: object) -> None:
    """Runs a command in this process; what it says of a failure is raised as it says it."""
    said = io.StringIO()
    code: object = 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            nodebits_command([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
    if code:
        raise OutputError(None, said.getvalue(), None)


class Tried:
    """Writes under a fault, and what they left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: Counter[str] = Counter()

    def write(self, name: str, writer: Writer, fault: AbstractContextManager[None]) -> None:
        """One write over an old file."""
        path = self.folder / name
        path.write_bytes(OLD)
        self.found["writes"] += 1
        error: BaseException | None = None
        try:
            with fault:
                writer(path)
        except BaseException as caught:
            error = caught
        left = [entry.name for entry in self.folder.iterdir() if entry != path]
        content = path.read_bytes()
        faults = {
            "left a file": bool(left),
            "untyped": error is not None and not isinstance(error, OutputError),
            "unnamed": error is not None and str(self.folder) not in str(error),
            "lost the old file": error is not None and content != OLD,
            "wrote nothing": error is None and content == OLD,
        }
        self.found["refused" if error is not None else "written"] += 1
        self.found["failures"] += int(any(faults.values()))
        for what in (what for what, holds in faults.items() if holds):
            print(name, what, left, repr(error)[:300], file=sys.stderr)
        for other in left:
            (self.folder / other).unlink()


def one_by_one(tried: Tried, name: str, writer: Writer) -> int:
    """Lets call after call fail; returns how many calls a write makes."""
    libc = ctypes.CDLL(None)
    within = ctypes.create_string_buffer(str(tried.folder).encode())
    libc.failed_call.restype = ctypes.c_char_p
    calls = 0

    @contextlib.contextmanager
    def fault(n: int, reason: int) -> Iterator[None]:
        nonlocal calls
        libc.fail_files(within, ctypes.c_long(n), reason)
        try:
            yield
        finally:
            calls = libc.end_files()

    for reason in REASONS:
        for n in itertools.count(1):
            tried.write(name, writer, fault(n, reason))
            if calls < n:  # all that it makes have failed in their turn
                break
    return calls


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Files may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def work(folder: Path) -> None:
    """The process that runs with the library: prints what it found."""
    torch.set_num_threads(1)
    made, target = folder / "made", folder / "target"
    target.mkdir()
    tried = Tried(target)
    calls = {}
    for name, writer in writers(made).items():
        for size in (0, 100, 500):
            tried.write(name, writer, limited(size))
        calls[name] = one_by_one(tried, name, writer)
        (target / name).unlink()
    print(calls, file=sys.stderr)
    print(json.dumps({"calls": sum(calls.values()), "files": len(calls), **tried.found}))


def main() -> None:
    """Runs that process and records what it found."""
    if sys.argv[1:2] == ["process"]:
        work(Path(sys.argv[2]))
        return
    started = time.perf_counter()
    # In memory where that is possible: thousands of writes wait for a disk otherwise.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        environment = preloaded("failing_files", Path(folder))
        done = subprocess.run(
            [sys.executable, __file__, "process", folder],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    record(
        Result(
            "R15",
            "Disk full, quota, permission",
            f"{found['files']} kinds of files, {found['calls']} calls that fail in turn for "
            f"{len(REASONS)} reasons: {found['writes']:,} writes, {found.get('refused', 0):,} "
            "errors that name the place and leave the old file whole, "
            f"{found.get('written', 0)} written all the same, {found['failures']} others",
            found["writes"],
            found["failures"],
            not found["failures"],
        ),
        started,
    )


if __name__ == "__main__":
    main()
