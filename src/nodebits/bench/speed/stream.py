"""The memory bandwidth that this machine sustains, measured in the run that quotes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from nodebits.bench.device.card import CPU, finished
from nodebits.bench.speed.memory import require_memory

# Beyond the last-level cache of any server processor of today.
_BYTES = 1 << 30
_RUNS = 5


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second of sequential passes over a gibibyte, best of five.

    Attributes:
        read: ``sum`` of an array.
        triad: ``a = b + s * c`` over three arrays (two reads and a write, as STREAM counts).
    """

    read: float
    triad: float

    @property
    def best(self) -> float:
        """The larger one: what shares are shares of."""
        return max(self.read, self.triad)

    def to_json(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def stream_bandwidth(total_bytes: int | None = None, device: torch.device = CPU) -> Bandwidth:
    """Measures with torch's current number of threads.

    Args:
        total_bytes: Size of all arrays of a pass together; None: a gibibyte.
        device: Whose memory.

    Raises:
        OutOfMemoryError: If the arrays do not fit.
    """
    total_bytes = _BYTES if total_bytes is None else total_bytes
    if device.type == "cpu":
        require_memory(total_bytes, "the bandwidth measurement")
    whole = torch.ones(total_bytes // 4, device=device)
    read = _best_rate(finished(whole.sum, device), whole.nbytes)
    third = whole.numel() // 3
    a, b, c = whole[:third], whole[third : 2 * third], whole[2 * third : 3 * third]
    add = finished(lambda: torch.add(b, c, alpha=3.0, out=a), device)
    triad = _best_rate(add, 3 * a.nbytes)
    return Bandwidth(read, triad)


def _best_rate(call: Callable[[], object], moved: int) -> float:
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return moved / best
