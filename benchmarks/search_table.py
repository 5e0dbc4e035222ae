"""Markdown tables and the plot of the rows that ``search_study.py`` wrote."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from nodebits.core.files import write_atomically

TABLE, PLOT = "search.md", "search_granularity.svg"
# Every other strategy is set against it.
BASE = "random"
Rows = list[dict[str, Any]]


def write(rows: Rows, folder: Path) -> None:
    """Writes ``search.md`` and the plot into ``folder``."""
    parts = ["# Bit search\n\nRendered by `benchmarks/search_study.py table`.\n"]
    kinds: dict[str, Rows] = defaultdict(list)
    for row in rows:
        kinds[row["study"]].append(row)
    if kinds["compare"]:
        parts.append(
            "## Against random search\n\nLeast bytes (activations and weights, packed) of a table "
            "within half a point of the float model's validation accuracy, after 80 measured "
            "configurations; every seed has a float model of its own.\n\n"
            + compared(kinds["compare"])
        )
    if kinds["granularity"]:
        parts.append(
            "## By what shares a width\n\nLeast kB whose validation accuracy is at most so many "
            "points below the float model's, mean over seeds that have one (seeds), after at most "
            f"80 configurations; test accuracy in brackets. Plot: `{PLOT}`.\n\n"
            + by_granularity(kinds["granularity"])
        )
        plot(kinds["granularity"], folder / PLOT)
    if kinds["latency"]:
        parts.append("## Latency\n\n" + latencies(kinds["latency"]))
    write_atomically(folder / TABLE, "\n".join(parts).encode())


def compared(rows: Rows) -> str:
    """Least bytes at the target by strategy; savings are medians over seeds, paired by seed."""
    groups: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        by_strategy = groups[row["dataset"], row["model"]]
        by_strategy.setdefault(row["strategy"], {})[row["seed"]] = row["best"]
    lines = [
        "| data set | model | strategy | seeds | kB, median (least to most) "
        "| less than random: median (least to most) | test accuracy, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for (dataset, model), strategies in groups.items():
        base = strategies.get(BASE, {})
        for strategy, found in strategies.items():
            size = [best["bytes"] / 1000 for best in found.values()]
            saved = [100 * (1 - found[s]["bytes"] / base[s]["bytes"]) for s in found if s in base]
            less = ""
            if saved and strategy != BASE:
                less = f"{median(saved):.0f} % ({min(saved):.0f} to {max(saved):.0f})"
            test = mean(100 * best["test"] for best in found.values())
            lines.append(
                f"| {dataset} | {model} | {strategy} | {len(found)} "
                f"| {median(size):.0f} ({min(size):.0f} to {max(size):.0f}) | {less} | {test:.1f} |"
            )
    return "\n".join(lines) + "\n"


DROPS = (0.0, 0.5, 1.0, 2.0)


def by_granularity(rows: Rows) -> str:
    """Least bytes within a drop, by granularity."""
    groups: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["model"], row["granularity"]].append(row)
    head = ["data set", "model", "granularity", "slots", *(f"{d:g} points" for d in DROPS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (dataset, model, name), runs in groups.items():
        cells = []
        for drop in DROPS:
            found = []
            for row in runs:
                fits = [p for p in row["front"] if p["val"] >= row["float_val"] - drop / 100]
                if fits:
                    found.append(min(fits, key=lambda p: p["bytes"]))
            if not found:
                cells.append("–")
                continue
            size = mean(p["bytes"] / 1000 for p in found)
            test = mean(100 * p["test"] for p in found)
            cells.append(f"{size:.0f} ({len(found)}) [{test:.1f}]")
        line = [dataset, model, name, str(runs[0]["slots"]), *cells]
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: Rows, path: Path) -> None:
    """Validation accuracy against kB: the fronts of seed 0, a panel per data set."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "nodebits"
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(5 * len(datasets), 3.6), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        chosen = [r for r in rows if r["dataset"] == dataset and r["seed"] == 0]
        for row in chosen:
            front = sorted((p["bytes"] / 1000, 100 * p["val"]) for p in row["front"])
            axis.step(
                [size for size, _ in front],
                [accuracy for _, accuracy in front],
                where="post",
                marker="o",
                ms=3,
                label=row["granularity"],
            )
        axis.axhline(100 * chosen[0]["float_val"], color="grey", lw=1, ls="--", label="float")
        axis.set_xscale("log")
        axis.set_title(f"{dataset}, {chosen[0]['model']}")
        axis.set_xlabel("kB of activations and weights")
        axis.set_ylabel("validation accuracy, %")
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def latencies(rows: Rows) -> str:
    """Error of the prediction, and what the objective ``latency`` finds beside ``bits``."""
    head = [
        "data set", "model", "seed", "all at 8 bits, ms", "random tables", "error, median",
        "error, nine tenths", "ms found by `bits`", "by `latency`", "bits / latency",
        "test accuracy of both",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        errors = [abs(t["predicted"] / t["measured"] - 1) for t in row["tables"]]
        bits, latency = row["chosen"]["bits"], row["chosen"]["latency"]
        cells = [
            row["dataset"],
            row["model"],
            str(row["seed"]),
            f"{row['reference_ms']:.2f}",
            str(len(errors)),
            f"{100 * median(errors):.0f} %",
            f"{100 * quantiles(errors, n=10)[-1]:.0f} %",
            f"{bits['measured_ms']:.2f}",
            f"{latency['measured_ms']:.2f}",
            f"{row['bits_over_latency']:.2f}",
            f"{100 * bits['test']:.1f} / {100 * latency['test']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    names = sorted({f"{r['processor']} ({r['isa']}, {r['threads']} thread)" for r in rows})
    return "\n".join(lines) + f"\n\nMeasured on {', '.join(names)}.\n"
