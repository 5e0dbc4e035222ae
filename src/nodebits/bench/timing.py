"""Interleaved timing: every candidate in every round, so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call."""

    median: float
    minimum: float
    p90: float
    repeats: int

    def to_json(self) -> dict[str, float]:
        """Returns the fields by name."""
        return asdict(self)


# A call shorter than this is made again and again, untimed, before it is timed: threads of the
# candidate before it may still be spinning, and the caches hold its data.
_SHORT = 0.05
# So long; OpenMP's threads spin for some milliseconds after each call of torch.
_SETTLING = 0.02
# A slow candidate that has used up its budget still has a median and quartiles.
_FEWEST = 3


def sample_interleaved(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    budget: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every call, taken round by round; short calls each after some untimed ones.

    Args:
        candidates: Calls to time, by name.
        repeats: Rounds that count, at least one.
        warmup: Rounds before, for caches and lazy initialisation.
        budget: Seconds after which a candidate with three samples sits out the later rounds.
        progress: Told the name of every call before it runs.
    """
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(warmup + repeats):
        for name, call in candidates.items():
            taken = samples[name]
            if budget is not None and len(taken) >= _FEWEST and sum(taken) > budget:
                continue
            if progress is not None:
                progress(f"{name}, round {round_number + 1} of {warmup + repeats}")
            if taken and taken[-1] < _SHORT:
                settled = time.perf_counter() + _SETTLING
                call()
                while time.perf_counter() < settled:
                    call()
            start = time.perf_counter_ns()
            result = call()
            elapsed = time.perf_counter_ns() - start
            del result  # its memory is free before the next call
            if round_number >= warmup:
                taken.append(elapsed / 1e9)
    return samples


def measure_interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 3
) -> dict[str, Latency]:
    """Times all candidates round by round; see :func:`sample_interleaved`."""
    samples = sample_interleaved(candidates, repeats, warmup)
    return {name: _summary([1e3 * s for s in values]) for name, values in samples.items()}


def quantiles(values: list[float], *shares: float) -> tuple[float, ...]:
    """Quantiles of the values, interpolated."""
    column = torch.tensor(values, dtype=torch.float64, device="cpu")
    return tuple(column.quantile(share).item() for share in shares)


def _summary(values: list[float]) -> Latency:
    median, p90 = quantiles(values, 0.5, 0.9)
    return Latency(median, min(values), p90, len(values))
