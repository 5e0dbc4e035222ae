"""One input: what came of it, what it cost, and whether that keeps the promises."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.target import Target

TYPED, UNTYPED, HANG, MEMORY, CRASH, RAN = "typed", "untyped", "hang", "memory", "crash", "ran"
SECONDS = 1.0
PER_BYTE, SLACK = 20, 64 << 20


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    Attributes:
        kind: ``ran``, ``typed``, or a broken promise: ``untyped``, ``hang``, ``memory``.
        depth: How far it got, see :mod:`fuzz.target`.
        seconds: Processor time.
        grown: Bytes by which resident memory grew at most.
        error: Class and message of the error.
        trace: Where it was raised, of an untyped one.
    """

    kind: str
    depth: str
    seconds: float
    grown: int
    error: str = ""
    trace: str = ""


class Place:
    """The file that inputs are written to; it stays open, since opening costs the most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("w+b", buffering=0)

    def write(self, data: bytes) -> None:
        """Makes ``data`` its content."""
        self._stream.seek(0)
        self._stream.write(data)
        self._stream.truncate()


class Meter:
    """Peak of resident memory since :meth:`start`; where Linux does not tell, 0."""

    def __init__(self) -> None:
        self._clear = self._now = -1
        if sys.platform == "linux":
            self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
            self._now = os.open("/proc/self/statm", os.O_RDONLY)
        self._page = resource.getpagesize()
        self._before = 0

    def start(self) -> None:
        """Forgets the peak so far."""
        if self._clear >= 0:
            os.write(self._clear, b"5")
            self._before = int(os.pread(self._now, 100, 0).split()[1]) * self._page

    def grown(self) -> int:
        """Bytes by which the peak is above what was there."""
        if self._clear < 0:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return max(peak - self._before, 0)


def attempt(target: Target, name: str, data: bytes, place: Place, meter: Meter) -> Outcome:
    """Lets a target read a file.

    Args:
        target: The reader.
        name: Of the seed that the file was made of.
        data: Its bytes.
        place: Where they are put.
        meter: Of memory.
    """
    place.write(data)
    target.depth = "refused"
    kind, error, trace = RAN, "", ""
    meter.start()
    started = time.process_time()
    try:
        target.run(name, place.path)
    except target.expected as found:
        kind, error = TYPED, type(found).__name__
    except Exception as found:
        kind, error = UNTYPED, f"{type(found).__name__}: {str(found)[:300]}"
        trace = _trace(found)
    except KeyboardInterrupt:
        raise
    except BaseException as found:
        kind, error, trace = UNTYPED, f"{type(found).__name__}: {found}", _trace(found)
    seconds, grown = time.process_time() - started, meter.grown()
    if kind == RAN and target.depth != "ran":
        kind = TYPED  # a checkpoint's warning
    if grown > PER_BYTE * len(data) + SLACK:
        kind = MEMORY  # of which clearing it may take the time
    elif seconds > SECONDS:
        kind = HANG
    return Outcome(kind, target.depth, seconds, grown, error, trace)


def _trace(error: BaseException) -> str:
    lines: list[Any] = traceback.format_exception(error)
    return "".join(lines)[-4000:]
