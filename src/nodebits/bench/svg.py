"""Small inline SVG charts that take their colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Series:
    """One line of a chart; ``mark`` is the index of the point to emphasise."""

    name: str
    values: Sequence[float]
    css: str
    mark: int | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: label, length, and the text at its end."""

    label: str
    value: float
    text: str
    css: str


_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 38


def line_chart(series: Sequence[Series], x_label: str, percent: bool = False) -> str:
    """Returns a line chart over the index of the values."""
    values = [value for line in series for value in line.values]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    pad = 0.05 * (high - low)
    low, high = low - pad, high + pad
    longest = max(max(len(line.values) for line in series), 2)

    def x(index: float) -> float:
        return _LEFT + index / (longest - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart" role="img">']
    for value in round_ticks(low, high):
        label = f"{100 * value:.4g}%" if percent else f"{value:.4g}"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{label}</text>'
        )
    for index in sorted({0, (longest - 1) // 2, longest - 1}):
        anchor = "start" if index == 0 else "end" if index == longest - 1 else "middle"
        parts.append(
            f'<text class="tick" x="{x(index):.1f}" y="{_HEIGHT - _BOTTOM + 15}" '
            f'text-anchor="{anchor}">{index + 1}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 5}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    for line in series:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(line.values))
        parts.append(f'<polyline class="line {line.css}" points="{points}"/>')
        if line.mark is not None and 0 <= line.mark < len(line.values):
            parts.append(
                f'<circle class="mark {line.css}" cx="{x(line.mark):.1f}" '
                f'cy="{y(line.values[line.mark]):.1f}" r="4"/>'
            )
    parts.append("</svg>")
    return "".join(parts) + legend([(line.name, line.css) for line in series])


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns at most ``most`` round values between two limits, evenly spaced."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def bar_chart(bars: Sequence[Bar]) -> str:
    """Returns horizontal bars on one common scale from zero."""
    longest = max(bar.value for bar in bars) or 1.0
    rows = []
    for bar in bars:
        width = max(100.0 * bar.value / longest, 0.4)
        rows.append(
            f'<div class="bar-label">{escape(bar.label)}</div><div class="bar-track">'
            f'<div class="bar {bar.css}" style="width:{width:.2f}%"></div></div>'
            f'<div class="bar-text">{escape(bar.text)}</div>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Returns a legend of names and their colours."""
    items = "".join(
        f'<span class="key"><i class="{css}"></i>{escape(name)}</span>' for name, css in entries
    )
    return f'<div class="legend">{items}</div>'
