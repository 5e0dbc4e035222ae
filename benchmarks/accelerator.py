"""Cycles and memory traffic of a model on a bit-serial accelerator.

The published speedups of A2Q come from a simulated accelerator that was never released. This is the
model that its description allows: features enter bit by bit, so a row of b bits takes b cycles per
tile of weights, whereas sums over edges cost the same at any width.

* Product: ``sum_i b_i * ceil(F_in / rows) * ceil(F_out / columns)`` cycles.
* Neighbour sum: ``ceil(edges / at once) * ceil(F / columns)`` cycles, times the message's bits
  where it is serial.
* DRAM: codes of the rows that are read, weights, edge indices (4 bytes) and results as the next
  site stores them are not counted twice: every stored tensor is written once and read once.

A phase takes the longer of computing and moving, or their sum. Phases follow one another.

``accelerator_published.toml`` holds the parameters that were inferred from the published speedups.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nodebits.core.errors import ConfigError
from nodebits.core.packing import row_bytes
from nodebits.methods.base import RAW_MIN_COLUMNS

DEFAULTS = Path(__file__).with_name("accelerator.toml")
PUBLISHED = Path(__file__).with_name("accelerator_published.toml")
_INDEX_BYTES = 4


@dataclass(frozen=True)
class Accelerator:
    """Parameters; the fields of ``accelerator.toml``.

    Attributes:
        product_rows: Features of one row that enter at once.
        product_columns: Outputs computed at once.
        sum_columns: Columns of a message added at once.
        sum_edges: Edges whose messages are added at once.
        sum_serial: Whether messages enter bit by bit.
        bytes_per_cycle: DRAM bandwidth.
        overlap: Whether computing and moving overlap.
        raw_input: ``"own"``, ``"equal"`` or ``"excluded"``, see the file.
    """

    product_rows: int = 16
    product_columns: int = 16
    sum_columns: int = 16
    sum_edges: int = 1
    sum_serial: bool = False
    bytes_per_cycle: float = 64.0
    overlap: bool = True
    raw_input: str = "own"

    def __post_init__(self) -> None:
        """Checks the parameters.

        Raises:
            ConfigError: Names the parameter.
        """
        names = ("product_rows", "product_columns", "sum_columns", "sum_edges", "bytes_per_cycle")
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ConfigError(f"accelerator: {name} is {value!r}, it must be positive")
        if self.raw_input not in ("own", "equal", "excluded"):
            raise ConfigError(
                f"accelerator: raw_input is {self.raw_input!r}: use 'own', 'equal' or 'excluded'"
            )


_KEYS = {
    ("combination", "rows"): "product_rows",
    ("combination", "columns"): "product_columns",
    ("aggregation", "columns"): "sum_columns",
    ("aggregation", "edges"): "sum_edges",
    ("aggregation", "serial"): "sum_serial",
    ("memory", "bytes_per_cycle"): "bytes_per_cycle",
    ("memory", "overlap"): "overlap",
    ("accounting", "raw_input"): "raw_input",
}


def read_accelerator(path: Path = DEFAULTS) -> Accelerator:
    """Reads parameters from a TOML file; missing ones keep their defaults.

    Raises:
        ConfigError: If the file cannot be read, or has an unknown or unusable entry.
    """
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    values: dict[str, Any] = {}
    for table, entries in data.items():
        for key, value in entries.items() if isinstance(entries, dict) else [("", entries)]:
            name = _KEYS.get((table, key))
            if name is None:
                known = ", ".join(".".join(k) for k in _KEYS)
                raise ConfigError(f"{path}: unknown entry {table}.{key}. Known: {known}")
            values[name] = value
    return Accelerator(**values)


@dataclass(frozen=True)
class Phase:
    """One product or neighbour sum of a forward.

    Attributes:
        name: Site that it reads, such as ``convs.0.message``.
        kind: ``"product"`` or ``"sum"``.
        rows_per_width: Rows of each width 1 to 8.
        in_columns: Columns of the rows.
        out_columns: Columns of the result (a product's outputs, a sum's columns).
        edges: Edges of a sum; 0 for a product.
        weight_bits: Of a product's weights.
    """

    name: str
    kind: str
    rows_per_width: tuple[int, ...]
    in_columns: int
    out_columns: int
    edges: int = 0
    weight_bits: int = 4

    @property
    def raw(self) -> bool:
        """Whether the rows are raw features."""
        return self.in_columns >= RAW_MIN_COLUMNS

    def at(self, bits: int) -> Phase:
        """The same phase with all rows of one width."""
        counts = [0] * 8
        counts[bits - 1] = sum(self.rows_per_width)
        return Phase(**{**asdict(self), "rows_per_width": tuple(counts)})


@dataclass(frozen=True)
class Cost:
    """Cycles and DRAM bytes of one phase.

    Attributes:
        name: As in :class:`Phase`.
        kind: As in :class:`Phase`.
        compute: Cycles of the arithmetic.
        bytes: Bytes moved.
        cycles: Cycles the phase takes.
    """

    name: str
    kind: str
    compute: int
    bytes: int
    cycles: float


def cost_of(phase: Phase, machine: Accelerator) -> Cost:
    """Cycles and traffic of one phase."""
    widths = list(enumerate(phase.rows_per_width, start=1))
    codes = sum(n * row_bytes(phase.in_columns, bits) for bits, n in widths)
    row_bits = sum(n * bits for bits, n in widths)
    if phase.kind == "product":
        tiles = math.ceil(phase.in_columns / machine.product_rows)
        tiles *= math.ceil(phase.out_columns / machine.product_columns)
        compute = row_bits * tiles
        moved = codes + phase.out_columns * row_bytes(phase.in_columns, phase.weight_bits)
    else:
        blocks = math.ceil(phase.in_columns / machine.sum_columns)
        rows = max(sum(phase.rows_per_width), 1)
        per_edge = row_bits / rows if machine.sum_serial else 1.0
        compute = round(math.ceil(phase.edges / machine.sum_edges) * blocks * per_edge)
        moved = codes + _INDEX_BYTES * phase.edges
    moving = moved / machine.bytes_per_cycle
    cycles = max(compute, moving) if machine.overlap else compute + moving
    return Cost(phase.name, phase.kind, compute, moved, cycles)


def simulate(phases: Sequence[Phase], machine: Accelerator) -> dict[str, Any]:
    """Costs of a model, and of the same model with all rows at 4 and at 8 bits.

    Returns:
        ``phases`` (a cost each, with those at 4 and 8 bits), ``cycles`` and ``bytes`` by
        model (``"learned"``, ``"int4"``, ``"int8"``), and ``speedup`` over ``int4`` and ``int8``.
    """
    rows = []
    cycles = {"learned": 0.0, "int4": 0.0, "int8": 0.0}
    moved = dict.fromkeys(cycles, 0)
    for phase in phases:
        if phase.raw and machine.raw_input == "excluded":
            continue
        equal = phase.raw and machine.raw_input == "equal"
        forms = {
            "learned": phase.at(1) if equal else phase,
            "int4": phase.at(1 if equal else 4),
            "int8": phase.at(1 if equal else 8),
        }
        costs = {name: cost_of(form, machine) for name, form in forms.items()}
        for name, cost in costs.items():
            cycles[name] += cost.cycles
            moved[name] += cost.bytes
        rows.append({name: asdict(cost) for name, cost in costs.items()})
    learned = cycles["learned"] or 1.0
    return {
        "machine": asdict(machine),
        "phases": rows,
        "cycles": cycles,
        "bytes": moved,
        "speedup": {name: cycles[name] / learned for name in ("int4", "int8")},
    }


def phases_of(
    sites: Sequence[dict[str, Any]], weights: Sequence[dict[str, Any]], edges: int
) -> list[Phase]:
    """Phases of a forward, from the account of a packed model.

    Args:
        sites: Entries of ``Account.sites`` as plain data: layer, site, bits, rows_per_width,
            num_rows, num_cols, at_site. What float layers read is left out.
        weights: Entries of ``Account.weights``: layer, site, bits, num_rows (outputs).
        edges: Edges that a neighbour sum runs over, self loops included where layers add them.

    Raises:
        ConfigError: If a site is left in float, which a bit-serial machine cannot read.
    """
    outputs = {w["layer"]: w for w in weights if w["site"] == "quantized_weight"}
    phases = []
    for site in sites:
        kind = {"input": "product", "message": "sum"}.get(site["site"])
        if kind is None or not site.get("at_site", True):
            continue
        counts = site.get("rows_per_width")
        if counts is None:
            if site["bits"] > 8:
                raise ConfigError(
                    f"{site['layer']}.{site['site']} is left in float: a bit-serial accelerator "
                    "reads codes of 1 to 8 bits"
                )
            counts = [0] * 8
            counts[int(site["bits"]) - 1] = site["num_rows"]
        weight = outputs.get(site["layer"])
        phases.append(
            Phase(
                f"{site['layer']}.{site['site']}",
                kind,
                tuple(counts),
                site["num_cols"],
                site["num_cols"] if weight is None else weight["num_rows"],
                edges if kind == "sum" else 0,
                4 if weight is None else min(int(weight["bits"]), 8),
            )
        )
    return phases
