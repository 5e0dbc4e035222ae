"""How busy other programs kept the machine while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class OtherLoad:
    """Counts from its construction on. A run beside other work says nothing about speed."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._own, self._all = _own_seconds(), _all_seconds()

    def cores(self) -> float | None:
        """Cores that other processes, and other machines on this host, used on average.

        None where the system does not tell.
        """
        if self._all is None:
            return None
        now = _all_seconds()
        assert now is not None
        used = (now - self._all) - (_own_seconds() - self._own)
        return round(max(0.0, used / max(1e-9, time.perf_counter() - self._start)), 2)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _all_seconds() -> float | None:
    if not _STAT.is_file():
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(
        int, _STAT.read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
