"""Memory that there is, and memory that a call takes.

A call's peak is read from the kernel: the high-water mark of the resident set (``VmHWM``), reset
before the call, less what was resident then. It counts every allocation of every library, also
temporary ones. Only Linux has it; elsewhere the peak is None.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nodebits.core.errors import OutOfMemoryError
from nodebits.core.memory import give_back_free_memory

MIB = 1 << 20
# Left to the system and to what estimates miss.
_RESERVE = 512 * MIB


def available_memory() -> int:
    """Bytes that can be allocated without swapping, within the limits of the control group."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group, or one of version 1
    return free


def fits(needed: int) -> bool:
    """Whether ``needed`` bytes are available, with a reserve."""
    return needed + _RESERVE <= available_memory()


def require_memory(needed: int, what: str) -> None:
    """Refuses an allocation that would not fit.

    Raises:
        OutOfMemoryError: Names what it is for, what it needs and what there is.
    """
    if not fits(needed):
        raise OutOfMemoryError(
            f"{what} needs about {needed / MIB:,.0f} MiB, but {available_memory() / MIB:,.0f} MiB "
            "are available: choose a smaller graph or fewer columns, or close other programs"
        )


def peak_of(call: Callable[[], object]) -> float | None:
    """MiB that were resident at the worst moment of ``call`` beyond what was before it.

    Its result counts, its inputs do not. None where the system does not tell.
    """
    gc.collect()
    if sys.platform != "linux":
        return None
    give_back_free_memory()  # what earlier calls freed would hide this call's needs
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        result = call()
        peak = _status("VmHWM")
    except (OSError, KeyError):
        return None
    del result
    return max(0, peak - before) / MIB


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields[field].split()[0]) * 1024
