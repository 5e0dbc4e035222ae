"""The picture of a measurement: bars of ratios, or lines of growth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from nodebits.bench.speed.growth import edges_of
from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport
from nodebits.core.errors import ConfigError
from nodebits.core.files import write_atomically

_FORMATS = ("png", "svg", "pdf")
_COLOURS = {"float32": "#8793a6", "float": "#5d6675", "integer": "#d98a1f", "nodebits": "#2f6fed"}


def check_plot_path(path: Path) -> Path:
    """Refuses a file type that cannot be drawn, before anything is measured.

    Raises:
        ConfigError: Names the types.
    """
    if path.suffix.lstrip(".").lower() not in _FORMATS:
        raise ConfigError(f"plot file {path.name}: use a name that ends in {', '.join(_FORMATS)}")
    return path


def plot_report(report: SpeedReport, path: Path) -> None:
    """Draws a report to a file.

    Args:
        report: With at least one measured row.
        path: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ConfigError: If the type is another one, or nothing was measured.
        OutputError: If the file cannot be written.
    """
    check_plot_path(path)
    measured = [row for row in report.rows if row.median_s is not None]
    if not measured:
        raise ConfigError("nothing was measured: there is nothing to draw")
    from matplotlib.figure import Figure

    draw = _lines if report.settings.what == "growth" else _bars
    figure = draw(Figure, measured)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lstrip(".").lower(), dpi=144, bbox_inches="tight")
    write_atomically(path, picture.getvalue())


def _bars(figure_type: Any, rows: list[Row]) -> Any:
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.op, row.graph, row.threads), []).append(row)
    height = sum(0.32 * len(group) + 0.9 for group in groups.values())
    figure = figure_type(figsize=(9, height), layout="constrained")
    ratios = [len(group) + 1.5 for group in groups.values()]
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axis, ((op, graph, threads), group) in zip(axes, groups.items(), strict=True):
        relative = all(row.ratio_best_float32 is not None for row in group)
        values = [(row.ratio_best_float32 if relative else row.median_s) or 0.0 for row in group]
        bars = axis.barh(
            [row.impl for row in group], values, color=[_COLOURS[row.kind] for row in group]
        )
        axis.bar_label(bars, fmt="%.2f" if relative else "%.4f", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(f"{op}, {graph}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        axis.set_xlabel("times the best float32" if relative else "seconds", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.1)
    return figure


def _lines(figure_type: Any, rows: list[Row]) -> Any:
    figure = figure_type(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    lines: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.impl, row.threads), []).append(row)
    for (impl, threads), line in lines.items():
        axis.loglog(
            [edges_of(row) for row in line],
            [row.median_s for row in line],
            marker="o",
            markersize=3,
            label=f"{impl}, {threads} thread{'s' * (threads > 1)}",
        )
    axis.set_xlabel("edges")
    axis.set_ylabel("seconds")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
