"""Measures the tiles of a device's kernels, and writes what it found for later processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from nodebits.bench.tuning.calls import Calls, calls_of
from nodebits.bench.tuning.settings import Tune
from nodebits.core.errors import ConfigError
from nodebits.ops.backends.triton import choice, tuned
from nodebits.ops.backends.triton.launch import forget
from nodebits.ops.backends.triton.tuning import Timer, Tuned, tune


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Attributes:
        card: The card, its capability and triton's version.
        path: The file that was written.
        found: By kernel and shape.
    """

    card: str
    path: Path
    found: list[Tuned]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, the path left out."""
        rows = [
            {
                "call": one.name, "kernel": one.choice.key.kernel, "shape": one.choice.key.shape,
                "sizes": one.choice.sizes, "ms": one.choice.ms, "rule_ms": one.choice.rule_ms,
                "tried": one.tried, "refused": one.refused,
            }
            for one in self.found
        ]  # fmt: skip
        return {"card": self.card, "rows": rows}


def device_timer(call: Callable[[], Any]) -> float:
    """Median milliseconds of a call on the device, by triton's own measurement."""
    testing: Any = import_module("triton.testing")
    return float(testing.do_bench(call, return_mode="median"))


def run_tuning(
    asked: Tune,
    progress: Callable[[str], None] | None = None,
    timer: Timer = device_timer,
    calls: Calls | None = None,
) -> Tuning:
    """Tunes the kernels that calls start, and keeps what was found in the cache folder.

    Args:
        asked: Shapes, and the cache folder.
        progress: Told what is tried.
        timer: Of a call on the device.
        calls: In place of those that follow from the shapes, such as a forward of one's own model
            (``{"model": lambda: packed.predict(x, edge_index)}``, on the device).

    Raises:
        ConfigError: If kernels cannot run here; says why.
        RuntimeError: If tiles change the bits of a result.
    """
    problem = choice.device_problem() or choice.triton_problem()
    if problem is not None:
        raise ConfigError(f"tiles are measured on a CUDA device: {problem}")
    if calls is None:
        calls = calls_of(asked, torch.device(asked.device))
    if not calls:
        raise ConfigError(f"no call has {' or '.join(asked.only)} in its name: see --only")
    refusals: Any = import_module("triton.errors").TritonError
    with torch.no_grad():
        found = tune(calls, timer, (refusals,), progress)
    card, path = tuned.card(), tuned.tiles_file(asked.cache)
    tuned.write(path, card, [one.choice for one in found])
    forget()
    return Tuning(card, path, found)
