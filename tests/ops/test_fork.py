"""A process that forks after several threads ran: the child computes, on one thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, torch
import nodebits.ops
torch.set_num_threads(2)
matrix = torch.randn(600, 600)
wanted = (matrix @ matrix).sum()
codes = torch.randint(256, (5000, 64), dtype=torch.uint8)
packed = nodebits.ops.pack(codes, 4)
child = os.fork()
if child == 0:
    same = torch.equal(nodebits.ops.pack(codes, 4), packed)
    (torch.randn(2000, 2000) + 1).exp()
    same &= torch.allclose((matrix @ matrix).sum(), wanted)
    os._exit(0 if same and torch.get_num_threads() == 1 else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    subprocess.run(run, env=environment, check=True, timeout=100, start_new_session=True)
