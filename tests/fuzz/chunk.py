"""Some thousand inputs in a process of their own, and the counts that are left of them."""

from __future__ import annotations

import json
import os
import random
import resource
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from ctypes import c_uint64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fuzz.attempt import Meter, Outcome, Place, attempt
from fuzz.target import Target

GOOD = ("ran", "typed")
# So many inputs are kept of what fails at one place.
_MOST_ALIKE = 3
# Beyond what is there when a chunk begins: what asks for more is refused, not swapped for.
_ADDRESS_SPACE = 4 << 30


def choose(r: random.Random, targets: list[Target]) -> Target:
    """The target of an input."""
    return r.choices(targets, [target.share for target in targets])[0]


def make_input(seed: int, number: int, targets: list[Target]) -> tuple[Target, str, bytes]:
    """Input ``number``: its target, its seed's name, its bytes; always the same ones."""
    r = random.Random((seed << 64) + number)
    target = choose(r, targets)
    name, data = target.input(r)
    return target, name, data


def run_chunk(
    targets: list[Target],
    seed: int,
    numbers: Iterable[int],
    folder: Path,
    at: Any = None,
    limit_memory: bool = True,
) -> dict[str, Any]:
    """Tries inputs.

    Args:
        targets: The readers.
        seed: Of the run.
        numbers: Of the inputs.
        folder: Where inputs that break a promise are kept.
        at: Shared number of the input at hand, for whoever watches.
        limit_memory: Whether to bound the address space, which the sanitizers do not survive.

    Returns:
        Counts by target, depth and outcome, and the extremes.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    at = c_uint64() if at is None else at
    counts: Counter[str] = Counter()
    alike: Counter[str] = Counter()
    worst: dict[str, float] = {"seconds": 0.0, "grown": 0, "above": -1e30}
    if limit_memory:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE, resource.RLIM_INFINITY))
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="nodebits-fuzz-") as work:
        place, meter = Place(Path(work) / "input"), Meter()
        for number in numbers:
            at.value = number
            target, name, data = make_input(seed, number, targets)
            outcome = attempt(target, name, data, place, meter)
            counts[f"{target.name}/{outcome.depth}/{outcome.kind}"] += 1
            worst["seconds"] = max(worst["seconds"], outcome.seconds)
            worst["grown"] = max(worst["grown"], outcome.grown)
            worst["above"] = max(worst["above"], outcome.grown - 20 * len(data))
            if outcome.kind not in GOOD:
                fault = f"{target.name} {outcome.kind} {outcome.trace[-300:]}"
                alike[fault] += 1
                if alike[fault] <= _MOST_ALIKE:
                    keep(folder, seed, number, target.name, name, data, outcome)
    return {"counts": dict(counts), "worst": worst}


def keep(
    folder: Path, seed: int, number: int, target: str, name: str, data: bytes, outcome: Outcome
) -> None:
    """Writes an input that broke a promise, to be tried again by ``--replay``."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{target}--{name}--{seed}-{number}"
    (folder / stem).write_bytes(data)
    (folder / f"{stem}.txt").write_text(json.dumps(asdict(outcome), indent=1) + outcome.trace)
