"""Runs Python in copies of one process that has imported torch, which takes seconds each time.

A copy imports nodebits and what a folder adds by itself, as a process of its own would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SERVER = """
import json, os, sys, traceback
import numpy, torch, torch_geometric.nn  # what nodebits imports, and nothing of nodebits

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.path.insert(0, job["folder"])
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


class Server:
    """The process that is copied.

    Args:
        folder: Where the output of runs goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads do not live on in a copy
        )

    def run(self, code: str, arguments: Sequence[str], folder: Path) -> Finished:
        """Runs ``code`` with the packages of ``folder``."""
        assert self.process.stdin is not None and self.process.stdout is not None
        out, err = self.folder / "out", self.folder / "err"
        job = {"code": code, "arguments": list(arguments), "folder": str(folder)}
        job |= {"out": str(out), "err": str(err)}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        returncode = int(self.process.stdout.readline())
        return Finished(returncode, out.read_text(), err.read_text())

    def stop(self) -> None:
        """Ends the process."""
        self.process.communicate()
