"""What a forked child can still run: torch's threads do not come along.

``fork`` copies the memory of a process and one of its threads. The thread pool of OpenMP then waits
for workers that the child does not have, and the first parallel operation of torch never ends
(a server that loads a model before it forks, a loader's workers). The pool of the kernels starts
anew in a child; torch's cannot, but it is not asked for where one thread is set.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch

_TASKS = Path("/proc/self/task")
_has_workers = False


def _look() -> None:
    """Before a fork: whether there are threads that Python did not start."""
    global _has_workers
    if sys.platform == "linux" and _TASKS.is_dir():
        _has_workers = len(os.listdir(_TASKS)) > threading.active_count()
    else:
        _has_workers = True


def _use_one_thread() -> None:
    """In the child."""
    if _has_workers and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_look, after_in_child=_use_one_thread)
