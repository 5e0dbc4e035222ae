"""Markdown table of the rows that ``search_study.py compare`` wrote."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from nodebits.core.files import write_atomically

TABLE = "search.md"
# Every other strategy is set against it.
BASE = "random"


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """Writes ``search.md`` into ``folder``."""
    write_atomically(folder / TABLE, compared(rows).encode())


def compared(rows: list[dict[str, Any]]) -> str:
    """Least bytes at the target by strategy; savings are medians over seeds, paired by seed."""
    groups: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        if row["study"] == "compare":
            by_strategy = groups[row["dataset"], row["model"]]
            by_strategy.setdefault(row["strategy"], {})[row["seed"]] = row["best"]
    lines = [
        "| Data | Model | Strategy | Seeds | kB, median (least to most) "
        "| Less than random (median) | Test accuracy, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for (dataset, model), strategies in groups.items():
        base = strategies.get(BASE, {})
        for strategy, found in strategies.items():
            size = [best["bytes"] / 1000 for best in found.values()]
            saved = [1 - found[s]["bytes"] / base[s]["bytes"] for s in found if s in base]
            less = f"{100 * median(saved):.1f} %" if saved and strategy != BASE else ""
            test = median(100 * best["test"] for best in found.values())
            lines.append(
                f"| {dataset} | {model} | {strategy} | {len(found)} "
                f"| {median(size):.0f} ({min(size):.0f} to {max(size):.0f}) | {less} | {test:.1f} |"
            )
    return "\n".join(lines) + "\n"
