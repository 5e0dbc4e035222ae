"""Accuracy against bytes of all methods on one data set, from the committed rows of each.

python benchmarks/methods_plot.py --write  # docs/img/methods.svg
python benchmarks/methods_plot.py          # prints the README's table

All are two-layer GCNs on Cora's public split, chosen on validation and measured on the file that
was loaded back. Bytes are those of all activations of a forward, as a share of float32's: raw
features, messages, scales and widths are counted (MixQ's rows have no figure with scales).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from nodebits.report.charts import Dots, encoded, scatter

RESULTS = Path(__file__).resolve().parent / "results"
PICTURE = RESULTS.parent.parent / "docs" / "img" / "methods.svg"
Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A line of the picture: its title, its file, and what keeps rows of one setting together."""

    title: str
    file: str
    colour: str
    setting: str
    wanted: tuple[tuple[str, str], ...] = (("dataset", "Cora"), ("model", "gcn"))


METHODS = (
    Method("uniform", "accuracy.jsonl", "c2", "bits", (("method", "uniform"),)),
    Method("Degree-Quant", "accuracy.jsonl", "c3", "bits", (("method", "degree-quant"),)),
    Method("A²Q", "a2q/accuracy.jsonl", "c4", "label"),
    Method("SGQuant", "sgquant.jsonl", "c5", "hidden"),
    Method("MixQ", "mixq.jsonl", "c6", "bit_lambda", (("preset", "default"),)),
)
# Rows of the README's table, by method and setting.
TABLE = (("Degree-Quant", 8), ("Degree-Quant", 4), ("uniform", 2), ("SGQuant", 32))


@dataclass(frozen=True)
class Point:
    """One method at one setting: share of float's bytes, and test accuracies of its runs."""

    share: float
    packed: list[float]
    floats: list[float]


def points(method: Method) -> dict[Any, Point]:
    """The settings of a method, each over its seeds."""
    grouped: dict[Any, list[Row]] = defaultdict(list)
    for line in (RESULTS / method.file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        here = row.get("dataset", "Cora") == "Cora" and row.get("model", "gcn") == "gcn"
        if here and all(row[key] == value for key, value in method.wanted if key in row):
            grouped[row[method.setting]].append(row)
    return {
        setting: Point(
            fmean(row.get("average_bits_with_scales", row["average_bits"]) for row in rows) / 32,
            [row["packed"] for row in rows],
            [row["float"] for row in rows],
        )
        for setting, rows in grouped.items()
    }


def draw() -> bytes:
    """The picture as SVG."""
    found = {method: points(method) for method in METHODS}
    groups = [
        Dots(m.title, sorted((100 * p.share, fmean(p.packed)) for p in there.values()), m.colour)
        for m, there in found.items()
    ]
    reference = found[METHODS[0]][8].floats
    label = "bytes of all activations, percent of float32's"
    figure = scatter(groups, label, fmean(reference), "float32, at 100")
    axis = figure.axes[0]
    axis.set_title("Test accuracy: two-layer GCN, Cora, public split", loc="left", fontsize=10)
    return encoded(figure, "svg")


def table() -> str:
    """Float and the best of each width, as Markdown."""
    found = {method.title: points(method) for method in METHODS}
    reference = found["uniform"][8].floats
    lines = [
        "| two-layer GCN on Cora | test accuracy, % | bytes of activations |",
        "|---|---|---|",
        f"| float32 | {_figure(reference)} | 1 |",
    ]
    for title, setting in TABLE:
        point = found[title][setting]
        bits = round(32 * point.share, 1)
        name = f"{title}, {bits:g} bits" if setting == 32 else f"{title}, {setting} bits"
        lines.append(f"| {name} | {_figure(point.packed)} | 1/{1 / point.share:.0f} |")
    return "\n".join(lines) + "\n"


def _figure(values: list[float]) -> str:
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f}"


def main() -> None:
    """Prints the table, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--write", action="store_true", help="write docs/img/methods.svg")
    if parser.parse_args().write:
        PICTURE.write_bytes(draw())
    print(table(), end="")


if __name__ == "__main__":
    main()
