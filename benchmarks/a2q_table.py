"""Table of the A2Q runs that ``accuracy.py --methods a2q`` wrote.

Accuracy, bits by three counts, and the simulated speedup over the same model at 4 bits.

    python benchmarks/a2q_table.py --results benchmarks/results/a2q
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from accelerator import PUBLISHED as INFERRED
from accelerator import Accelerator, phases_of, read_accelerator, simulate
from accuracy import read_rows
from nodebits.methods.base import RAW_MIN_COLUMNS

# Zhu et al., ICLR 2023: accuracy at average bits, speedup over Degree-Quant INT4. Its code selects
# on the test set.
PUBLISHED = {
    ("Cora", "gcn"): "80.9 at 1.70, 2.00x",
    ("Cora", "gat"): "82.6 at 2.03, 1.49x",
    ("CiteSeer", "gcn"): "70.6 at 1.87, 1.91x",
    ("CiteSeer", "gin"): "65.1 at 2.54, 1.37x",
    ("PubMed", "gat"): "78.8 at 2.12, 1.38x",
}
# Edges of the data sets, for the neighbour sums; GCN and GAT add a loop per node.
EDGES = {"Cora": 10_556, "CiteSeer": 9_104, "PubMed": 88_648, "Amazon-Computers": 491_722}
HEADER = """# A2Q

Test accuracy in percent of the packed model loaded from its file, at the best **validation** epoch
among those whose average is within the target; mean ± standard deviation over seeds. *Hidden*: the
paper's count, the mean width over hidden input sites. *Codes*: bits per value over all activation
tensors of a forward, input and messages included, by size. *All*: with scales and widths.
*Speedup*: simulated, over the same model with all rows at 4 bits (raw features left out / at one
bit in both / as each stores them / with the parameters inferred from the published speedups of GCN,
raw features left out). Published: Zhu et al., selected on the test set, with 16 hidden columns.

"""
COLUMNS = (
    "data set", "model", "settings", "seeds", "float", "float distilled", "**packed**", "hidden",
    "codes", "all", "speedup over INT4", "published",
)  # fmt: skip


def main() -> None:
    """Renders the table next to the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent / "results" / "a2q"
    parser.add_argument("--results", type=Path, default=default)
    options = parser.parse_args()
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(options.results / "accuracy.jsonl"):
        groups[row["dataset"], row["model"], row["label"]].append(row)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for key in sorted(groups):
        lines.append("| " + " | ".join(_cells(key, groups[key])) + " |")
    text = HEADER + "\n".join(lines) + "\n"
    (options.results / "accuracy.md").write_text(text)
    print(text)


def _cells(key: tuple[str, ...], rows: list[dict[str, Any]]) -> list[str]:
    dataset, model, label = key
    return [
        dataset,
        model,
        label,
        str(len(rows)),
        _spread([100 * row["float"] for row in rows], 1),
        _spread([100 * row["float_distilled"] for row in rows], 1),
        f"**{_spread([100 * row['packed'] for row in rows], 1)}**",
        _mean([hidden_bits(row) for row in rows]),
        _mean([row["average_bits"] for row in rows]),
        _mean([row["average_bits_with_scales"] for row in rows]),
        _speedups(rows) if dataset in EDGES else "",  # a set of graphs is no one layer of edges
        PUBLISHED.get((dataset, model), ""),
    ]


def _speedups(rows: list[dict[str, Any]]) -> str:
    return " / ".join(_mean([speedup(row, one) for row in rows]) for one in machines()) + " x"


def machines() -> list[Accelerator]:
    """The accountings, in the order of the header."""
    ours = read_accelerator()
    plain = [dataclasses.replace(ours, raw_input=raw) for raw in ("excluded", "equal", "own")]
    return [*plain, read_accelerator(INFERRED)]


def hidden_bits(row: dict[str, Any]) -> float:
    """The paper's count: mean width at input sites of hidden features, each site counting once."""
    sites = [s for s in row["sites"] if s["site"] == "input" and s["num_cols"] < RAW_MIN_COLUMNS]
    return statistics.mean(site["bits"] for site in sites)


def speedup(row: dict[str, Any], machine: Accelerator) -> float:
    """Simulated cycles of the model at 4 bits over those at its own widths."""
    loops = row["sites"][0]["num_rows"] if row["model"] in ("gcn", "gat") else 0
    # A layer's product makes what its next site reads.
    columns = [site["num_cols"] for site in row["sites"] if site["site"] != "attention"]
    products = [site for site in row["sites"] if site["site"] != "attention"]
    weights = [
        {"layer": site["layer"], "site": "quantized_weight", "bits": 4, "num_rows": out}
        for site, out in zip(products, [*columns[1:], row["spec"]["out_channels"]], strict=True)
        if site["site"] == "input"
    ]
    phases = phases_of(row["sites"], weights, EDGES[row["dataset"]] + loops)
    return float(simulate(phases, machine)["speedup"]["int4"])


def _spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}"


if __name__ == "__main__":
    main()
