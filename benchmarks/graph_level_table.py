"""The table of graph-level rows: ``results/graph_level.jsonl`` and ``results/graph_level.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodebits.jobs.compare_rows import ROWS_FILE, read_rows, write_rows
from nodebits.report.compare import method_of
from nodebits.report.published import published_for
from nodebits.report.words import count_of, figure, spread_of

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, TABLE = RESULTS / "graph_level.jsonl", RESULTS / "graph_level.md"
Row = dict[str, Any]

# Tailor et al.: Degree-Quant, ICLR 2021, the float models that they trained.
PUBLISHED_FLOAT = {
    ("MNIST", "gcn"): "90.9 ± 0.4",
    ("MNIST", "gat"): "95.8 ± 0.4",
    ("MNIST", "gin"): "96.4 ± 0.4",
    ("CIFAR10", "gcn"): "58.4 ± 0.5",
    ("CIFAR10", "gat"): "65.1 ± 0.8",
    ("CIFAR10", "gin"): "57.4 ± 0.7",
    ("ZINC", "gcn"): "0.450 ± 0.008",
    ("ZINC", "gat"): "0.455 ± 0.006",
    ("ZINC", "gin"): "0.334 ± 0.024",
    ("REDDIT-BINARY", "gin"): "92.2 ± 2.3",
}
HEADER = """# Graph-level sets

Written by `python benchmarks/graph_level.py --table`.

* *Packed* is the model loaded back from its file, at the best epoch of validation.
* Accuracy is in percent, more is better; of MAE less is better.
* *Trained alike* is a float model trained as the quantized one is, teacher included.
* *Bits* are the average over all activations, the input too, and with scales and zero points.
* *Published* is Degree-Quant's paper: its float model, and its own row of that width.
* `NAME:N` are the first N graphs of each part of the split: such rows are no results of the set.
* `MNIST-slic` is made here of the images; published rows are of the benchmark's own graphs.
* `CIFAR10-jpeg-slic` is made here of images that were compressed as JPEG, which is lossy.
* `ZINC12k_alt` has other molecules than ZINC: published figures of ZINC do not compare.
* The row of PROTEINS at 4 bits went on at the rate of float training, five times that of today.
* Training has four rates now, as in rows of MNIST, and of ESOL with GIN and ten folds or 40 epochs.
* In other rows of fewer than 200 epochs the rate fell at epoch 50 or never.

"""
COLUMNS = (
    "data set", "model", "method", "width", "metric", "runs", "epochs, float", "epochs, quantized",
    "float", "float, trained alike", "**packed**", "agreement", "bits", "bits with scales",
    "published float", "published",
)  # fmt: skip


def write(runs: Path) -> str:
    """Takes over the rows of a folder, and draws the table of all; returns it."""
    known = {row["key"]: row for row in read_rows(ROWS)}
    known |= {row["key"]: row for row in read_rows(runs / ROWS_FILE) if not row["error"]}
    rows = sorted(known.values(), key=_place)
    write_rows(ROWS, rows)
    text = render(rows)
    TABLE.write_text(text, encoding="utf-8")
    return text


def render(rows: list[Row]) -> str:
    """Returns the table, and the command of every row below it."""
    if not rows:
        return HEADER + "No row has been run to its end yet.\n"
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(row) for row in rows)]
    text = HEADER + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    machines = sorted({f"{row['processor']}, {row['isa']}" for row in rows})
    versions = sorted(
        {", ".join(f"{name} {v}" for name, v in row["versions"].items()) for row in rows}
    )
    commands = dict.fromkeys(row["command"] for row in rows)
    text += "\n" + "".join(f"* {said}\n" for said in (*machines, *versions))
    return text + "\n```sh\n" + "".join(f"{command}\n" for command in commands) + "```\n"


def released_name(dataset: str) -> str:
    """The name that papers know a set by; of a subset or of made graphs too."""
    plain = dataset.partition(":")[0]
    return plain.removesuffix("-slic").removesuffix("-jpeg")


def _place(row: Row) -> tuple[Any, ...]:
    return row["dataset"], row["model"], row["method"], row["preset"], -row["bits"], row["key"]


def _cells(row: Row) -> tuple[str, ...]:
    metric, alike, epochs = row["metric"], row["float_distilled"], row["epochs"]
    name = released_name(row["dataset"])
    published = [
        f"{figure(one.figure, metric, 1)} ± {figure(one.spread or 0.0, metric, 1)}"
        for one in published_for(name, row["model"])
        if (one.method, one.bits) == (row["method"], row["bits"])
    ]
    folds = row["folds"]
    runs = len(row["packed"]["values"])
    return (
        row["dataset"],
        row["model"],
        method_of(row),
        str(row["bits"]),
        metric["title"],
        count_of(runs, "seed" if folds is None else "fold"),
        str(epochs["float"]),
        str(epochs["quantized"]),
        spread_of(row["float"], metric),
        "" if alike is None else spread_of(alike, metric),
        f"**{spread_of(row['packed'], metric)}**",
        f"{row['agreement']:.4f}",
        f"{row['average_bits']:.2f}",
        f"{row['average_bits_with_scales']:.2f}",
        PUBLISHED_FLOAT.get((name, row["model"]), ""),
        ", ".join(published),
    )
