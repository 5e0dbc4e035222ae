"""One ``nodebits bench`` command: settings, the measurement, the document that comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from nodebits import ops
from nodebits.bench.device.card import DEVICES, describe_card, require_card
from nodebits.bench.device.host_rows import measure_host_rows
from nodebits.bench.device.molecules import measure_molecules
from nodebits.bench.environment import describe_environment
from nodebits.bench.load import OtherLoad
from nodebits.bench.speed.aggregate import measure_aggregate
from nodebits.bench.speed.dense import measure_dense
from nodebits.bench.speed.forward import measure_forward
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.speed.growth import edge_counts, measure_growth, slopes
from nodebits.bench.speed.memory import available_memory
from nodebits.bench.speed.models import MODELS, Sizes
from nodebits.bench.speed.rows import Protocol, Row
from nodebits.bench.speed.settings import OfModels, OfMolecules, OnGraph, OnHost, Sums, Timing
from nodebits.bench.speed.steps import measure_steps
from nodebits.bench.speed.stream import stream_bandwidth
from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError, UnknownNameError

What = Literal["aggregate", "dense", "model", "train", "growth", "molecules", "rows"]
# What needs a graph.
_ON_GRAPHS = ("aggregate", "model", "train")
DENSE_SHAPE = (232_965, 600, 128)


@dataclass(frozen=True)
class SpeedSettings(Timing, Sums, OfModels, OnGraph, OfMolecules, OnHost):
    """What to measure.

    Attributes:
        what: Which measurement.
        shape: N, K and M of ``dense``.
        edges: Smallest and largest number of edges of ``growth``.
    """

    what: What
    shape: tuple[int, int, int] = DENSE_SHAPE
    edges: tuple[int, int] = (100_000, 100_000_000)

    def __post_init__(self) -> None:
        """Rejects values outside their range.

        Raises:
            BitwidthError: A width outside 1 to 8.
            ConfigError: Another value out of range.
            UnknownNameError: There is no such model or device.
        """
        self._check_device()
        for width in self.bits:
            check_bits(width)
        if not self.bits:
            raise ConfigError("bits is empty: name at least one width, such as 8,4")
        for name, value in (
            ("repeats", self.repeats),
            ("columns", self.columns),
            ("hidden", 1 if self.hidden is None else self.hidden),
            *(("threads", count) for count in self.threads),
            *(("shape", size) for size in self.shape),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        for model in self.models:
            if model not in MODELS:
                raise UnknownNameError.for_name("model", model, MODELS)
        if self.what == "growth":
            edge_counts(*self.edges)

    def _check_device(self) -> None:
        """Refuses what the device does not measure, and what would say nothing of it."""
        if self.device not in DEVICES:
            raise UnknownNameError.for_name("device", self.device, DEVICES)
        if self.device == "cpu":
            if self.what == "rows":
                raise ConfigError("rows go from the host to a card: give --device cuda, not cpu")
            return
        if self.what == "growth":
            raise ConfigError(
                "growth is measured on the CPU alone: leave out --device cuda, or give "
                "aggregate --device cuda graphs of several sizes"
            )
        for name, given in (("threads", self.threads), ("reorder", self.reorder)):
            if given:
                raise ConfigError(
                    f"--{name} is of the CPU alone: leave it out beside --device cuda"
                )


@dataclass
class SpeedReport:
    """What was measured, and on what.

    Attributes:
        settings: As given.
        rows: One per implementation, operation and number of threads.
        environment: Machine and versions.
        bandwidth: Bytes per second by number of threads.
    """

    settings: SpeedSettings
    rows: list[Row] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    bandwidth: dict[int, dict[str, float]] = field(default_factory=dict)

    def slopes(self) -> dict[int, dict[str, float]]:
        """Log-log slopes of ``growth``, by number of threads and implementation."""
        if self.settings.what != "growth":
            return {}
        return {
            threads: slopes([row for row in self.rows if row.threads == threads])
            for threads in dict.fromkeys(row.threads for row in self.rows)
        }

    def to_json(self, command: str = "") -> dict[str, Any]:
        """The document of ``--json``."""
        document: dict[str, Any] = {"command": command, "environment": self.environment}
        document["bandwidth"] = {str(threads): rates for threads, rates in self.bandwidth.items()}
        if self.settings.what == "growth":
            document["slopes"] = {
                str(threads): {impl: round(slope, 4) for impl, slope in found.items()}
                for threads, found in self.slopes().items()
            }
        document["rows"] = [row.to_json() for row in self.rows]
        return document


def run_speed(
    settings: SpeedSettings, progress: Callable[[str], None] = lambda text: None
) -> SpeedReport:
    """Measures what the settings say; torch's number of threads is put back afterwards.

    Args:
        settings: What to measure.
        progress: Told what is being done.

    Raises:
        UnknownNameError: There is no such graph.
        OutOfMemoryError: The graph does not fit.
        ConfigError: No card can serve.
    """
    if settings.device == "cuda":
        require_card(settings.what != "rows")
    report = SpeedReport(settings)
    load = OtherLoad()
    before = torch.get_num_threads()
    bench: BenchGraph | None = None
    try:
        if settings.what in _ON_GRAPHS:
            progress(f"graph {settings.graph}")
            bench = load_graph(
                settings.graph,
                seed=settings.seed,
                communities=settings.communities,
                cache=settings.cache,
                data_root=settings.data_root,
            )
        for threads in settings.threads or (before,):
            torch.set_num_threads(threads)
            progress("memory bandwidth")
            bandwidth = stream_bandwidth(device=torch.device(settings.device))
            report.bandwidth[threads] = bandwidth.to_json()
            protocol = Protocol(
                repeats=settings.repeats,
                budget=settings.budget,
                bandwidth=bandwidth,
                only=settings.only,
                progress=progress,
                device=torch.device(settings.device),
                card=settings.device != "cpu",
            )
            report.rows += _measure(settings, bench, protocol)
    finally:
        torch.set_num_threads(before)
    card = describe_card(torch.device(settings.device))
    report.environment = {**_environment(), **card, "other_load": load.cores()}
    return report


def _measure(settings: SpeedSettings, bench: BenchGraph | None, protocol: Protocol) -> list[Row]:
    if settings.what == "dense":
        return measure_dense(settings.shape, settings.bits, protocol)
    if settings.what == "growth":
        counts: Sequence[int] = edge_counts(*settings.edges)
        return measure_growth(counts, settings.bits, settings.columns, protocol, settings.cache)
    if settings.what == "molecules":
        hidden, models = settings.hidden or Sizes().hidden, settings.models
        return measure_molecules(models, settings.graphs, hidden, settings.bits, protocol)
    if settings.what == "rows":
        size = settings.nodes, settings.columns
        return measure_host_rows(size, settings.batch, settings.bits, protocol)
    if bench is None:
        raise ConfigError(f"{settings.what} needs a graph")
    if settings.what == "aggregate":
        return measure_aggregate(
            bench.name,
            bench.graph,
            settings.bits,
            settings.columns,
            protocol,
            settings.weighted,
            settings.reorder,
        )
    hidden = settings.hidden or (128 if bench.x is None else 64)
    sizes = Sizes(hidden=hidden)
    if settings.what == "model":
        models, bits = settings.models, settings.bits
        return measure_forward(bench, models, bits, sizes, protocol, settings.reorder)
    return measure_steps(bench, settings.models, settings.bits, sizes, protocol)


def _environment() -> dict[str, Any]:
    found = describe_environment()
    del found["threads"]  # a row has its own
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        **found,
        "cores": os.cpu_count(),
        "isa": ops.current_isa(),
        "available_memory_gib": round(available_memory() / 2**30, 1),
        "huge_pages": pages.read_text().split("[")[1].split("]")[0] if pages.is_file() else None,
    }
