"""Every chart of the project, drawn by matplotlib: inline in a page, or to a file.

It is imported by the first chart: commands that draw none do not wait for it.

On a page the colours become variables of its style sheet, so that a chart follows the reader's
light or dark setting, and its text takes the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By their names in the style sheet.
COLOURS = {
    "c1": "#8793a6",
    "c2": "#2f6fed",
    "c3": "#d98a1f",
    "c4": "#2a9d6e",
    "c5": "#8e5bd0",
    "c6": "#d1495b",
    "c7": "#17a2b8",
    "c8": "#6b7d2a",
    "soft": "#5d6675",
    "rule": "#e3e7ed",
    "card": "#fefefe",
}
# Inches of a chart in a card.
_WIDTH, _HEIGHT = 6.0, 3.2


@dataclass(frozen=True)
class Series:
    """One line of a chart over the index of its values; ``mark`` is the one to emphasise."""

    name: str
    values: Sequence[float]
    colour: str
    mark: int | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: label, length, and the text at its end."""

    label: str
    value: float
    text: str
    colour: str


@dataclass(frozen=True)
class Dots:
    """Points of one kind; ``stairs`` joins them as a front from left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    stairs: bool = False


def blank(width: float, height: float) -> Figure:
    """Returns a figure of this size in inches, without axes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def lines(series: Sequence[Series], x_label: str, percent: bool = False) -> Figure:
    """Returns lines over the number of a value, counted from 1."""
    figure, axis = _framed(x_label, percent)
    for line in series:
        colour = COLOURS[line.colour]
        axis.plot(range(1, len(line.values) + 1), line.values, color=colour, label=line.name)
        if line.mark is not None and 0 <= line.mark < len(line.values):
            axis.plot([line.mark + 1], [line.values[line.mark]], "o", color=colour)
    axis.xaxis.set_major_locator(_ticks(4, integer=True))
    _legend(axis)
    return figure


def scatter(
    groups: Sequence[Dots],
    x_label: str,
    target: float | None = None,
    target_label: str = "target",
    percent: bool = True,
) -> Figure:
    """Returns a figure of quality over a cost.

    Args:
        groups: Points as ``(cost, figure)``.
        x_label: Text below.
        target: Figure to draw as a line.
        target_label: Its name in the legend.
        percent: Whether figures are shares, shown in percent.
    """
    figure, axis = _framed(x_label, percent)
    for group in groups:
        style = {"color": COLOURS[group.colour], "label": group.name, "markersize": 5}
        if group.stairs:
            style["drawstyle"] = "steps-post"
        xs, ys = zip(*group.points, strict=True) if group.points else ((), ())
        axis.plot(xs, ys, "o-" if group.stairs else "o", **style)
    if target is not None:
        axis.axhline(target, color=COLOURS["c3"], linestyle=(0, (4, 3)), label=target_label)
    axis.xaxis.set_major_locator(_ticks(5))
    _legend(axis)
    return figure


def bars(groups: dict[str, Sequence[Bar]]) -> Figure:
    """Returns horizontal bars from zero, every group on a scale of its own.

    Args:
        groups: Bars by the title above them; an empty title is left out.
    """
    sizes = [len(group) + (0.9 if title else 0.3) for title, group in groups.items()]
    figure = blank(_WIDTH, 0.32 * sum(sizes))
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (title, group) in zip(axes, groups.items(), strict=True):
        horizontal(axis, title, group)
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
    return figure


def horizontal(axis: Any, title: str, group: Sequence[Bar]) -> None:
    """Draws one group of bars, the first on top, on an axis of a figure."""
    colours = [COLOURS[bar.colour] for bar in group]
    # Two bars may have the same label.
    drawn = axis.barh(range(len(group)), [bar.value for bar in group], 0.6, color=colours)
    axis.set_yticks(range(len(group)), [bar.label for bar in group])
    axis.bar_label(drawn, [bar.text for bar in group], padding=4, fontsize=9)
    axis.set_title(title, loc="left", fontsize=10, color=COLOURS["soft"])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.tick_params(length=0, labelsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _framed(x_label: str, percent: bool) -> tuple[Figure, Any]:
    figure = blank(_WIDTH, _HEIGHT)
    axis = figure.subplots()
    axis.set_xlabel(x_label, fontsize=9)
    axis.grid(axis="y", color=COLOURS["rule"])
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    axis.yaxis.set_major_locator(_ticks(6))
    if percent:
        from matplotlib.ticker import PercentFormatter

        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return figure, axis


def _ticks(most: int, integer: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=integer)


def _legend(axis: Any) -> None:
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=4, frameon=False, fontsize=9)


def encoded(figure: Figure, kind: str) -> bytes:
    """Returns a figure as a file of ``kind``: png, svg or pdf."""
    import matplotlib

    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nodebits"}):
        figure.savefig(
            picture,
            format=kind,
            dpi=144,
            bbox_inches="tight",
            metadata={"Date": None} if kind == "svg" else None,
        )
    return picture.getvalue()


def inline(figure: Figure) -> Markup:
    """Returns a figure as an element of a page.

    Text colours, lines and fonts become the page's. Names that matplotlib gives to its groups go:
    on a page with two charts they would stand twice.
    """
    figure.patch.set_alpha(0)
    for axis in figure.axes:
        axis.patch.set_alpha(0)
    text = encoded(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d{1,4}"', "", text)
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg class="chart" role="img" \1>', text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = text.replace("#000000", "var(--soft)")
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text)
