"""A scatter chart with a staircase front, as inline SVG in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nodebits.bench.svg import legend, round_ticks

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 12, 40


@dataclass(frozen=True)
class Dots:
    """Points of one kind; ``stairs`` joins them as a front from left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    css: str
    stairs: bool = False


def scatter_chart(
    groups: Sequence[Dots], x_label: str, target: float | None = None, target_label: str = "target"
) -> str:
    """Returns accuracy (share, shown in percent) over a cost.

    Args:
        groups: Points as ``(cost, accuracy)``.
        x_label: Text below.
        target: Accuracy to draw as a line.
        target_label: Its name in the legend.
    """
    xs = [x for group in groups for x, _ in group.points]
    ys = [y for group in groups for _, y in group.points] + ([] if target is None else [target])
    x_low, x_high = _padded(min(xs), max(xs))
    y_low, y_high = _padded(min(ys), max(ys))

    def x(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (y_high - value) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    right = _WIDTH - _RIGHT
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart" role="img">']
    for value in round_ticks(y_low, y_high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{100 * value:.4g}%</text>'
        )
    for value in round_ticks(x_low, x_high, 5):
        parts.append(
            f'<text class="tick" x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 15}" '
            f'text-anchor="middle">{value:.4g}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 5}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    names = [(group.name, group.css) for group in groups]
    if target is not None:
        parts.append(
            f'<line class="line c3" stroke-dasharray="4 3" x1="{_LEFT}" x2="{right}" '
            f'y1="{y(target):.1f}" y2="{y(target):.1f}"/>'
        )
        names.append((target_label, "c3"))
    for group in groups:
        if group.stairs and group.points:
            path = [f"M{x(group.points[0][0]):.1f},{y(group.points[0][1]):.1f}"]
            path += [f"H{x(px):.1f}V{y(py):.1f}" for px, py in group.points[1:]]
            parts.append(f'<path class="line {group.css}" d="{"".join(path)}"/>')
        for px, py in group.points:
            parts.append(
                f'<circle class="mark {group.css}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="3.4"/>'
            )
    parts.append("</svg>")
    return "".join(parts) + legend(names)


def _padded(low: float, high: float) -> tuple[float, float]:
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    pad = 0.06 * (high - low)
    return low - pad, high + pad
