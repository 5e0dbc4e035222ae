"""Ranks as copies of this process, which has imported what they need; used by code under test."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(world: int, work: Callable[[int], Any], folder: Path) -> list[int]:
    """Begins a process for each rank; its result is in ``folder / rank``."""
    port, processes = free_port(), []
    for rank in range(world):
        child = os.fork()
        if child:
            processes.append(child)
            continue
        os.environ.update(
            RANK=str(rank),
            WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
        )
        code = 0
        try:
            result = work(rank)
        except BaseException as error:
            result, code = error, 1
            if not hasattr(error, "status"):
                traceback.print_exc()
        (folder / f"{rank}.part").write_bytes(pickle.dumps(result))
        os.replace(folder / f"{rank}.part", folder / str(rank))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return processes


def ended(processes: list[int], folder: Path) -> list[Any]:
    """What the ranks returned or raised; None of one that was killed."""
    for child in processes:
        os.waitpid(child, 0)
    found = []
    for rank in range(len(processes)):
        path = folder / str(rank)
        found.append(pickle.loads(path.read_bytes()) if path.exists() else None)
        path.unlink(missing_ok=True)
    return found
