"""Markdown table of the rows that ``accuracy.py`` wrote, beside published figures."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

# Tailor, Fernandez-Marques, Lane: Degree-Quant, ICLR 2021, main table and REDDIT-BINARY results.
# "uniform" is set beside the paper's QAT baseline.
PUBLISHED = {
    ("Cora", "gcn", "degree-quant", 8): "81.7 ± 0.7",
    ("Cora", "gcn", "degree-quant", 4): "78.3 ± 1.7",
    ("Cora", "gat", "degree-quant", 8): "82.7 ± 0.7",
    ("Cora", "gat", "degree-quant", 4): "71.2 ± 2.9",
    ("Cora", "gin", "degree-quant", 8): "78.7 ± 1.4",
    ("Cora", "gin", "degree-quant", 4): "69.9 ± 3.4",
    ("CiteSeer", "gcn", "degree-quant", 8): "71.0 ± 0.9",
    ("CiteSeer", "gcn", "degree-quant", 4): "66.9 ± 2.4",
    ("CiteSeer", "gat", "degree-quant", 8): "71.6 ± 1.0",
    ("CiteSeer", "gat", "degree-quant", 4): "67.6 ± 1.5",
    ("CiteSeer", "gin", "degree-quant", 8): "67.5 ± 1.4",
    ("CiteSeer", "gin", "degree-quant", 4): "60.8 ± 2.1",
    ("Cora", "gcn", "uniform", 8): "81.0 ± 0.7",
    ("Cora", "gcn", "uniform", 4): "77.2 ± 5.0",
    ("Cora", "gat", "uniform", 8): "81.9 ± 0.7",
    ("Cora", "gat", "uniform", 4): "55.6 ± 5.4",
    ("Cora", "gin", "uniform", 8): "75.6 ± 1.2",
    ("Cora", "gin", "uniform", 4): "42.5 ± 4.5",
    ("CiteSeer", "gcn", "uniform", 8): "71.3 ± 1.0",
    ("CiteSeer", "gcn", "uniform", 4): "64.1 ± 4.1",
    ("CiteSeer", "gat", "uniform", 8): "71.2 ± 1.0",
    ("CiteSeer", "gat", "uniform", 4): "65.3 ± 1.9",
    ("CiteSeer", "gin", "uniform", 8): "63.0 ± 2.6",
    ("CiteSeer", "gin", "uniform", 4): "18.6 ± 2.9",
    ("REDDIT-BINARY", "gin", "degree-quant", 8): "91.8 ± 2.3",
    ("REDDIT-BINARY", "gin", "degree-quant", 4): "81.3 ± 4.4",
    ("REDDIT-BINARY", "gin", "uniform", 8): "76.1 ± 7.5",
    ("REDDIT-BINARY", "gin", "uniform", 4): "54.4 ± 6.6",
}
PUBLISHED_FLOAT = {
    ("Cora", "gcn"): "81.4 ± 0.7",
    ("Cora", "gat"): "83.1 ± 0.4",
    ("Cora", "gin"): "77.6 ± 1.1",
    ("CiteSeer", "gcn"): "71.1 ± 0.7",
    ("CiteSeer", "gat"): "72.5 ± 0.7",
    ("CiteSeer", "gin"): "66.1 ± 0.9",
    ("REDDIT-BINARY", "gin"): "92.2 ± 2.3",
}
DATASETS = ("Cora", "CiteSeer", "PubMed", "REDDIT-BINARY")
MODELS = ("gcn", "gat", "gin", "sage")

HEADER = """# Accuracy

Test accuracy in percent at the best **validation** epoch, mean ± standard deviation over runs
(seeds on the public split; folds of the ten-fold protocol for REDDIT-BINARY). *Packed* is the
integer model loaded back from its file. *Float distilled* is a float model trained exactly as the
quantized one, teacher included. *Agreement* is the smallest share, over the runs, of test rows on
which packed and simulated model predict the same class. *Bits* is the average over all activation
tensors, input included. Published figures: Degree-Quant, ICLR 2021 (float; DQ beside
`degree-quant`, its QAT baseline beside `uniform`).

Rows of GIN below 8 bits whose average bits are just their width have one width everywhere
(`--set sum_bits=BITS head_bits=BITS`). The others keep 8 bits behind hidden sums, as is the
default. What that gives to graph-level models is in [spared.md](spared.md).

"""
COLUMNS = (
    "data set", "model", "method", "bits", "runs", "float", "float distilled", "simulated",
    "**packed**", "agreement", "avg. bits", "published", "published float",
)  # fmt: skip


SUMMARY = {
    "float": ("degree-quant", 8, "float"),
    "float, distilled": ("degree-quant", 8, "float_distilled"),
    "**8 bits** (DQ)": ("degree-quant", 8, "packed"),
    "**4 bits** (DQ)": ("degree-quant", 4, "packed"),
    "4 bits, published DQ": ("degree-quant", 4, None),
    "**2 bits** (uniform)": ("uniform", 2, "packed"),
}


def summarize(rows: list[dict[str, Any]]) -> str:
    """Returns the short table: a line per data set and model, widths side by side."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["preset"] == "default":
            groups[row["dataset"], row["model"], row["method"], row["bits"]].append(row)
    lines = [
        f"| data set, model | {' | '.join(SUMMARY)} | runs |",
        "|---" * (len(SUMMARY) + 2) + "|",
    ]
    for dataset in DATASETS:
        for model in MODELS:
            runs = groups.get((dataset, model, "degree-quant", 8))
            if not runs:
                continue
            cells = [f"{dataset}, {model.upper()}"]
            for method, bits, figure in SUMMARY.values():
                found = groups.get((dataset, model, method, bits))
                if figure is None:
                    cells.append(PUBLISHED.get((dataset, model, method, bits), "").split(" ")[0])
                    continue
                text = _spread(found, figure) if found else ""
                # A column that is not the mean of as many runs says of how many it is.
                text += f" ({len(found)})" if found and len(found) != len(runs) else ""
                cells.append(f"**{text}**" if text and figure == "packed" else text)
            lines.append(f"| {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def render(rows: list[dict[str, Any]]) -> str:
    """Returns the table of all rows, the short one before it, other settings behind."""
    usual = [row for row in rows if not row.get("label")]
    found = HEADER + summarize(usual) + "\n" + _table(usual)
    for label in sorted({row["label"] for row in rows if row.get("label")}):
        of_label = [row for row in rows if row.get("label") == label]
        settings = " ".join(f"{name}={value}" for name, value in of_label[0]["overrides"].items())
        found += f"\n## `--set {settings}`\n\n" + _table(of_label)
    return found


def _table(rows: list[dict[str, Any]]) -> str:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        key = tuple(row[name] for name in ("dataset", "model", "method", "preset", "bits"))
        groups[key].append(row)
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "|".join("---" for _ in COLUMNS) + "|",
    ]
    for key in sorted(groups, key=_order):
        lines.append("| " + " | ".join(_cells(key, groups[key])) + " |")
    return "\n".join(lines) + "\n"


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dataset, model, method, preset, bits = key
    place = DATASETS.index(dataset) if dataset in DATASETS else len(DATASETS)
    return place, dataset, MODELS.index(model), method, preset, -bits


def _cells(key: tuple[Any, ...], rows: list[dict[str, Any]]) -> list[str]:
    dataset, model, method, preset, bits = key
    runs = f"{len(rows)} folds" if rows[0]["fold"] is not None else f"{len(rows)}"
    published = PUBLISHED.get((dataset, model, method, bits), "")
    return [
        dataset,
        model,
        method if preset == "default" else f"{method} ({preset})",
        str(bits),
        runs,
        _spread(rows, "float"),
        _spread(rows, "float_distilled"),
        _spread(rows, "simulated"),
        f"**{_spread(rows, 'packed')}**",
        f"{min(row['agreement'] for row in rows):.4f}",
        f"{statistics.mean(row['average_bits'] for row in rows):.2f}",
        published,
        PUBLISHED_FLOAT.get((dataset, model), ""),
    ]


def _spread(rows: list[dict[str, Any]], name: str) -> str:
    values = [100.0 * row[name] for row in rows]
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
