"""Markdown table of the rows that ``sgquant.py`` wrote, beside the published ones."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

HEADER = """# SGQuant

Test accuracy in percent, mean ± standard deviation over seeds; every choice (epoch, bit table) was
made on validation. *Drop* is our float model minus the packed model read back from its file.
*Bits* and *saving* count as SGQuant does (node-feature matrices alone); *average bits* counts all
activation tensors, with and without scales; *packed* and *float* are the bytes of all activation
tensors, scales included. *Input* is the feature matrix stored without quantization: dense, sparse,
and as a bit mask where every row has a single non-zero value. Weights are quantized here, in float
in the paper. Split: public (Planetoid); Amazon-Computers: 20 per class train, 30 validation, drawn
with seed 0; its float models are below the paper's (89.57 for GCN), which had another split.
Rows without the field `fine_tuned` come from an earlier form of `sgquant.py`, which tried only the
front and always fine-tuned.

"""
COLUMNS = (
    "data set", "model", "seeds", "float", "packed", "drop", "published drop", "bits",
    "published bits", "saving", "published saving", "average bits", "with scales", "packed kB",
    "float kB", "input dense / sparse / mask kB",
)  # fmt: skip


def render(
    rows: list[dict[str, Any]], published: dict[tuple[str, str], tuple[float, float, float]]
) -> str:
    """Returns the table of all rows."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["model"]].append(row)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for key, (drop, bits, saving) in published.items():
        if key not in groups:
            lines.append(f"| {key[0]} | {key[1]} | not run |" + " |" * (len(COLUMNS) - 3))
            continue
        group = groups[key]
        first = group[0]
        own = statistics.mean(100 * (row["float"] - row["packed"]) for row in group)
        mask = first["input_bit_mask_bytes"]
        inputs = [first["input_dense_bytes"], first["input_sparse_bytes"], mask]
        cells = [
            *key,
            str(len(group)),
            _spread(group, "float"),
            _spread(group, "packed"),
            f"{own:+.2f}",
            f"{drop:+.2f}",
            f"{first['published_bits']:.2f}",
            f"{bits:g}",
            f"{first['published_saving']:.1f}x",
            f"{saving:g}x",
            f"{first['average_bits']:.2f}",
            f"{first['average_bits_with_scales']:.2f}",
            f"{first['activation_bytes'] / 1e3:.0f}",
            f"{first['float_activation_bytes'] / 1e3:.0f}",
            " / ".join("–" if value is None else f"{value / 1e3:.0f}" for value in inputs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return HEADER + "\n".join(lines) + "\n"


def _spread(rows: list[dict[str, Any]], name: str) -> str:
    values = [100 * row[name] for row in rows]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"
