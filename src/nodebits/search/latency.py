"""Latency of a bit table from a small table of kernel costs, measured once per machine and model.

The packed model itself is the stopwatch: one site after another takes each of its widths while all
others stay at a reference width, and the difference to the reference is the cost of that width at
that site. Kernels run one after another, so differences add up. Rows of mixed widths cost the mean
of their buckets' differences, plus what sorting rows by width costs at that site.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import Choice, ListOf, Number, Object, Options, check_fields
from nodebits.core.strict_json import read_json
from nodebits.runtime import PackedModel
from nodebits.search.space import Point, Space
from nodebits.train.inputs import Inputs

REFERENCE_BITS = 8
TABLE_VERSION = 1
_FIELDS: Options = {
    "version": Choice((TABLE_VERSION,)),
    "reference": Number(0.0),
    "costs": Object(Object(Number())),
    "mixed": Object(Number()),
    "shares": Object(ListOf(Number(0.0, 1.0))),
    "machine": Object(),
}
_WIDTHS = {str(width) for width in range(1, 9)}


def interleaved(
    models: Mapping[str, PackedModel], inputs: Inputs, repeats: int
) -> dict[str, list[float]]:
    """Times all models round by round, so that drift hits all alike; two rounds are warm-up."""
    calls: dict[str, Callable[[], object]] = {}
    for name, packed in models.items():
        ready = inputs.repeated(packed)
        calls[name] = lambda packed=packed, ready=ready: ready.apply(packed.predict)  # type: ignore[misc]
    samples: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for number in range(repeats + 2):
            for name, call in calls.items():
                start = time.perf_counter_ns()
                call()
                if number >= 2:
                    samples[name].append((time.perf_counter_ns() - start) / 1e6)
    return samples


@dataclass
class LatencyTable:
    """Costs in milliseconds.

    Attributes:
        reference: Latency with every slot at the reference width.
        costs: By site and width, the difference to the reference.
        mixed: By site, what rows of mixed widths cost more than the mean of their widths.
        shares: By site, the share of rows in each degree bucket.
        machine: What the table was measured on.
    """

    reference: float
    costs: dict[str, dict[int, float]]
    mixed: dict[str, float] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def predict(self, space: Space, point: Point) -> float:
        """Milliseconds of a point, never below a tenth of the reference."""
        total = self.reference
        for site, widths in space.table(point).items():
            costs = self.costs.get(site, {})
            if isinstance(widths, int):
                total += costs.get(widths, 0.0)
                continue
            shares = self.shares.get(site, [1.0 / len(widths)] * len(widths))
            if len(shares) != len(widths):
                raise FileFormatError(
                    f"the table of kernel costs has {len(shares)} shares of site {site!r}, which "
                    f"has {len(widths)} widths"
                )
            total += self.mixed.get(site, 0.0)
            total += sum(s * costs.get(w, 0.0) for s, w in zip(shares, widths, strict=True))
        return max(total, 0.1 * self.reference)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "version": TABLE_VERSION,
            "reference": self.reference,
            "costs": {s: {str(w): c for w, c in by.items()} for s, by in self.costs.items()},
            "mixed": self.mixed,
            "shares": self.shares,
            "machine": self.machine,
        }

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Reads the JSON of :meth:`to_json`.

        Raises:
            FileNotFoundError: If there is no file.
            FileFormatError: If it holds anything else; names the field.
        """
        where = f"{path}: table"
        data = read_json(path, "a table of kernel costs")
        check_fields(data, _FIELDS, where)
        for site, costs in data["costs"].items():
            if not costs.keys() <= _WIDTHS:
                raise FileFormatError(f"{where}.costs.{site}: its keys are widths, 1 to 8")
        by_width = {s: {int(w): float(c) for w, c in by.items()} for s, by in data["costs"].items()}
        named = {name: data[name] for name in ("mixed", "shares", "machine")}
        return cls(float(data["reference"]), by_width, **named)


def measure_table(
    space: Space,
    packed_of: Callable[[Point], PackedModel],
    inputs: Inputs,
    *,
    repeats: int = 9,
    shares: list[float] | None = None,
    machine: dict[str, Any] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measures the table of a space.

    Args:
        space: Its slots, each of one site (granularity ``component`` or ``bucket``); the table
            predicts the points of any space over these sites.
        packed_of: Makes the packed model of a point.
        inputs: The forward to time.
        repeats: Timed rounds per width.
        shares: Share of nodes in each degree bucket, for spaces with buckets.
        machine: Kept with the table.
        on_step: Called with (measured, all) after every site.
    """
    base = space.uniform(REFERENCE_BITS)
    reference_model = packed_of(base)
    sites = list(space.table(base))
    costs: dict[str, dict[int, float]] = {}
    mixed: dict[str, float] = {}
    references: list[float] = []
    for number, site in enumerate(sites):
        places = [i for i, slot in enumerate(space.slots) if site in slot.sites]
        choices = space.slots[places[0]].choices
        points = {
            str(w): _with(base, places, [w] * len(places)) for w in choices if w != base[places[0]]
        }
        if len(places) > 1:
            half = [
                choices[-1] if i % 2 == 0 else choices[len(choices) // 2]
                for i in range(len(places))
            ]
            points["mixed"] = _with(base, places, half)
        models = {"reference": reference_model} | {n: packed_of(p) for n, p in points.items()}
        samples = {n: statistics.median(v) for n, v in interleaved(models, inputs, repeats).items()}
        reference = samples.pop("reference")
        references.append(reference)
        costs[site] = {base[places[0]]: 0.0}
        costs[site] |= {int(n): v - reference for n, v in samples.items() if n != "mixed"}
        if "mixed" in samples:
            share = shares or [1.0 / len(places)] * len(places)
            plain = sum(s * costs[site][w] for s, w in zip(share, half, strict=True))
            mixed[site] = samples["mixed"] - reference - plain
        if on_step is not None:
            on_step(number + 1, len(sites))
    by_site = {site: shares for site in mixed} if shares is not None else {}
    return LatencyTable(statistics.median(references), costs, mixed, by_site, machine or {})


def _with(base: Point, places: list[int], widths: list[int]) -> Point:
    point = list(base)
    for place, width in zip(places, widths, strict=True):
        point[place] = width
    return tuple(point)
