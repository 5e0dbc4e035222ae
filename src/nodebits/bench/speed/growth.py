"""How seconds grow with edges, at a constant mean degree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import torch

from nodebits.bench.speed.aggregate import Table
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.speed.models import Sizes, float_model, packed_model
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, measure
from nodebits.core.errors import ConfigError

_DEGREE = 50
_FEATURES, _CLASSES = 64, 16


def edge_counts(low: int, high: int, per_decade: int = 2) -> list[int]:
    """Counts from ``low`` to ``high``, evenly spaced on a logarithmic scale.

    Raises:
        ConfigError: Unless ``1000 <= low < high``.
    """
    if not 1_000 <= low < high:
        raise ConfigError(f"edges from {low} to {high}: need 1000 <= from < to")
    steps = max(1, round(per_decade * math.log10(high / low)))
    return [round(low * (high / low) ** (i / steps)) for i in range(steps + 1)]


def measure_growth(
    edges: Sequence[int],
    bits: Sequence[int],
    num_cols: int,
    protocol: Protocol,
    cache: str | PathLike[str] | None = None,
) -> list[Row]:
    """Measures neighbour sums and a packed GCN forward (64-128-16) on graphs of mean degree 50.

    Args:
        edges: Numbers of edges.
        bits: Widths.
        num_cols: Columns of the sums.
        protocol: How to measure.
        cache: See :func:`nodebits.bench.speed.graphs.load_graph`.
    """
    rows: list[Row] = []
    for count in edges:
        name = f"random:{max(2, count // _DEGREE)}:{count}"
        protocol.progress(f"growth: graph of {count:,} edges")
        bench = load_graph(name, cache=cache)
        table = Table(bench.graph, num_cols)
        names = {"embedding_bag float32"} | {f"nodebits u{b}" for b in bits}
        candidates = [c for c in table.candidates(bits, None) if c.impl in names]
        rows += measure("growth", name, candidates, protocol)
        del table
        rows += _forward(bench, bits, protocol)
    return rows


def _forward(bench: BenchGraph, bits: Sequence[int], protocol: Protocol) -> list[Row]:
    small = replace(bench, num_features=_FEATURES, num_classes=_CLASSES)
    x = small.features()
    sizes = Sizes()

    def build_at(width: int) -> Candidate:
        def build() -> Call:
            model = packed_model(float_model("gcn", _FEATURES, _CLASSES, sizes), small, width)
            graph = model.prepare_graph(small.graph, small.graph.num_dst)
            return lambda: model.predict(x, graph)

        needs = 60 * bench.graph.num_edges + 20 * x.nbytes
        return Candidate(f"nodebits GCN u{width}", "nodebits", build, width, None, needs)

    with torch.no_grad():
        return measure("growth", bench.name, [build_at(b) for b in bits], protocol)


def edges_of(row: Row) -> int:
    """Number of edges of a growth row's graph."""
    return int(row.graph.rsplit(":", 1)[1])


def slopes(rows: Sequence[Row]) -> dict[str, float]:
    """Least-squares slope of log seconds over log edges, by implementation."""
    found = {}
    for impl in dict.fromkeys(row.impl for row in rows):
        points = [
            (math.log(edges_of(r)), math.log(r.median_s))
            for r in rows
            if r.impl == impl and r.median_s is not None
        ]
        if len(points) < 2:
            continue
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        above = sum((x - mean_x) * (y - mean_y) for x, y in points)
        found[impl] = above / sum((x - mean_x) ** 2 for x, _ in points)
    return found


__all__ = ["edge_counts", "edges_of", "measure_growth", "slopes"]
