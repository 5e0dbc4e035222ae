"""A2Q beside Degree-Quant and uniform quantization on identical sites: table and plot.

Reads the rows of ``accuracy.py``; every method has the same model, data, epochs to train the float
model and the same sites quantized, input and messages included.

    python benchmarks/a2q_fair.py
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from accuracy import read_rows

RESULTS = Path(__file__).resolve().parent / "results"
DATASETS = ("Cora", "CiteSeer", "PubMed", "Amazon-Computers")
A2Q = ("all-4", "all-3", "all-2.0", "all-1.7")
Rows = list[dict[str, Any]]


def series(rows: Rows, learned: Rows) -> dict[tuple[str, str], Rows]:
    """GCN rows of default presets by (data set, setting)."""
    found: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in rows:
        key = (row["method"], row["bits"])
        names = {
            ("degree-quant", 4): "Degree-Quant INT4",
            ("uniform", 4): "uniform INT4",
            ("uniform", 2): "uniform INT2",
        }
        if row["model"] == "gcn" and row["preset"] == "default" and key in names:
            found[row["dataset"], names[key]].append(row)
    for row in learned:
        if row["model"] == "gcn" and row["label"] in A2Q:
            found[row["dataset"], f"A2Q {float(row['label'][4:]):g}"].append(row)
    return found


SETTINGS = (
    "Degree-Quant INT4", "uniform INT4", "uniform INT2", "A2Q 4", "A2Q 3", "A2Q 2", "A2Q 1.7",
)  # fmt: skip


def percent(values: list[float]) -> str:
    """Mean and sample deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def bits_of(rows: Rows) -> float:
    """Average bits per activation value, scales and widths counted."""
    return statistics.mean(row["average_bits_with_scales"] for row in rows)


def table(found: dict[tuple[str, str], Rows]) -> str:
    """Accuracy at average bits; a data set per column."""
    shown = [d for d in DATASETS if any(key[0] == d for key in found)]
    lines = ["| setting | " + " | ".join(shown) + " |", "|---|" + "---|" * len(shown)]
    for field, name in (("float", "float"), ("float_distilled", "float, trained the same way")):
        cells = []
        for dataset in shown:
            by_seed = {
                r["seed"]: r[field] for k, rs in found.items() if k[0] == dataset for r in rs
            }
            cells.append(percent(list(by_seed.values())))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for setting in SETTINGS:
        cells = []
        for dataset in shown:
            rows = found.get((dataset, setting), [])
            if not rows:
                cells.append("–")
                continue
            accuracy = percent([row["packed"] for row in rows])
            cells.append(f"{accuracy} at {bits_of(rows):.2f} ({len(rows)})")
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(found: dict[tuple[str, str], Rows], path: Path) -> None:
    """Accuracy against average bits, a panel per data set."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "nodebits"
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(DATASETS))
    for axis, dataset in zip(axes, DATASETS, strict=True):
        learned = [
            found[dataset, s] for s in SETTINGS if s.startswith("A2Q") and found.get((dataset, s))
        ]
        groups = {"A2Q": learned}
        for setting in SETTINGS[:3]:
            groups[setting] = [found[dataset, setting]] if found.get((dataset, setting)) else []
        for name, many in groups.items():
            values = [[100 * row["packed"] for row in rows] for rows in many]
            axis.errorbar(
                [bits_of(rows) for rows in many],
                [statistics.mean(v) for v in values],
                [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values],
                fmt="o-" if name == "A2Q" else "s",
                capsize=2,
                label=name,
            )
        floats = [r["float"] for k, rows in found.items() if k[0] == dataset for r in rows]
        if floats:
            axis.axhline(100 * statistics.mean(floats), color="grey", lw=1, ls="--", label="float")
        axis.set_title(dataset)
        axis.set_xlabel("bits per value, all counted")
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Writes ``fair.md`` and ``fair.svg``."""
    folder = RESULTS / "a2q"
    found = series(read_rows(RESULTS / "accuracy.jsonl"), read_rows(folder / "accuracy.jsonl"))
    text = (
        "# A2Q beside the others, on identical sites\n\nTwo-layer GCN of 64 columns. Test accuracy "
        "in percent of the packed model loaded from its file, at the best validation epoch, mean ± "
        "standard deviation (runs), at bits per activation value with raw input, messages, scales "
        "and widths counted. 0/1 and constant rows are exact at one bit, which is why the average "
        "can lie below a target. Rendered by `benchmarks/a2q_fair.py`.\n\n" + table(found)
    )
    (folder / "fair.md").write_text(text)
    plot(found, folder / "fair.svg")
    print(text)


if __name__ == "__main__":
    main()
