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


def measure_interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 3
) -> dict[str, Latency]:
    """Times all candidates round by round.

    Args:
        candidates: Calls to time, by name.
        repeats: Rounds that count, at least one.
        warmup: Rounds before, for caches and lazy initialisation.
    """
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(warmup + repeats):
        for name, call in candidates.items():
            start = time.perf_counter_ns()
            call()
            elapsed = (time.perf_counter_ns() - start) / 1e6
            if round_number >= warmup:
                samples[name].append(elapsed)
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Latency:
    column = torch.tensor(values, dtype=torch.float64)
    return Latency(
        median=column.quantile(0.5).item(),
        minimum=column.min().item(),
        p90=column.quantile(0.9).item(),
        repeats=len(values),
    )
