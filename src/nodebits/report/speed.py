"""The picture of a speed measurement: bars of ratios, or lines of growth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodebits.bench.speed.growth import edges_of
from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport
from nodebits.core.errors import ConfigError
from nodebits.core.files import write_atomically
from nodebits.report.charts import Bar, blank, encoded, horizontal
from nodebits.report.words import count_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg", "pdf")
_COLOURS = {"float32": "c1", "float": "soft", "integer": "c3", "nodebits": "c2"}


def check_plot_path(path: Path) -> Path:
    """Refuses a file type that cannot be drawn, before anything is measured.

    Raises:
        ConfigError: Names the types.
    """
    if _kind(path) not in _FORMATS:
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
    card = report.environment.get("card")
    figure = _lines(measured) if report.settings.what == "growth" else _bars(measured, card)
    write_atomically(path, encoded(figure, _kind(path)))


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def _bars(rows: list[Row], card: str | None) -> Figure:
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.op, row.graph, row.threads), []).append(row)
    height = sum(0.32 * len(group) + 0.9 for group in groups.values())
    figure = blank(9, height)
    ratios = [len(group) + 1.5 for group in groups.values()]
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axis, ((op, graph, threads), group) in zip(axes, groups.items(), strict=True):
        relative = all(row.ratio_best_float32 is not None for row in group)
        form = "{:.2f}" if relative else "{:.4f}"
        values = [(row.ratio_best_float32 if relative else row.median_s) or 0.0 for row in group]
        drawn = [
            Bar(row.impl, value, form.format(value), _COLOURS[row.kind])
            for row, value in zip(group, values, strict=True)
        ]
        where = card or count_of(threads, "thread")
        horizontal(axis, f"{op}, {graph}, {where}", drawn)
        axis.set_xlabel("times the best float32" if relative else "seconds", fontsize=8)
    return figure


def _lines(rows: list[Row]) -> Figure:
    figure = blank(7, 5)
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
            label=f"{impl}, {count_of(threads, 'thread')}",
        )
    axis.set_xlabel("edges")
    axis.set_ylabel("seconds")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
