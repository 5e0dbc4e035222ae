"""Runs Python in copies of one process that has imported what takes seconds each time.

A copy imports nodebits by itself, as a process of its own would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What nodebits imports, and nothing of nodebits.
TORCH = ("numpy", "torch", "torch_geometric.nn")
COMMAND = ("typer", "rich.table")

_SERVER = """
import importlib, json, os, sys, traceback

for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(job["environment"])
    sys.path[:0] = job["path"]
    sys.argv[:] = ["-c", *job["arguments"]]
    code = 0
    try:
        exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


@dataclass(frozen=True)
class Finished:
    """What a run left behind."""

    returncode: int
    stdout: str
    stderr: str


class Python:
    """The process that is copied.

    Args:
        folder: Where the output of runs goes.
        imported: Modules that every copy has from the start.
    """

    def __init__(self, folder: Path, imported: Sequence[str]) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads do not live on in a copy
        )

    def __call__(
        self, code: str, *arguments: str | Path, path: Sequence[Path] = (), **environment: str
    ) -> Finished:
        """Runs ``code`` with arguments, places to import from, and environment variables."""
        assert self.process.stdin is not None and self.process.stdout is not None
        job = {
            "code": code,
            "arguments": [str(argument) for argument in arguments],
            "path": [str(place) for place in path],
            "environment": environment,
            "out": str(self.out),
            "err": str(self.err),
        }
        print(json.dumps(job), file=self.process.stdin, flush=True)
        returncode = int(self.process.stdout.readline())
        return Finished(returncode, self.out.read_text(), self.err.read_text())

    def stop(self) -> None:
        """Ends the process."""
        self.process.communicate()
