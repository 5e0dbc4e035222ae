"""Markdown table of the rows that ``real_tasks.py`` wrote."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

Rows = list[dict[str, Any]]

HEADER = """# Blocks with edge features on molecules

Mean absolute error on the test split at the best **validation** epoch, mean ± standard deviation
over seeds; less is better.
*Packed* is the integer model loaded back from its file.
*Loses* is how far its mean lies above that of float, in standard deviations of float.
*Agreement* is the smallest share, over the runs, of test rows where packed equals simulated to
rounding.
Quantized models start from the float model and learn from its outputs, for as many epochs again.

"""
_COLUMNS = ("data set", "model", "bits", "runs", "float", "packed", "loses", "agreement", "file")


def render(rows: Rows) -> str:
    """Returns the table of all rows, what was changed in a table of its own."""
    plain = [row for row in rows if not row["label"]]
    text = HEADER + _settings(plain) + "\n" + _table(plain)
    labelled = [row for row in rows if row["label"]]
    if labelled:
        text += "\n## Other widths\n\n"
        text += "*One width* has 8 bits nowhere, so not behind sums and convolutions either.\n"
        text += "Other names say which kind of site has 8 bits.\n\n"
        text += _table(labelled, "changed")
    return text


def _settings(rows: Rows) -> str:
    """The sizes and the training that rows share."""
    lines = []
    for name, some in _by(rows, "dataset").items():
        row = some[0]
        fit, sizes = row["fit"], row["arguments"]
        lines.append(
            f"{name}: {sizes['layers']} layers of width {sizes['hidden']}, {fit['epochs']} epochs "
            f"in batches of {fit['batch_size']}."
        )
    return "\n".join(lines) + "\n"


def _table(rows: Rows, more: str = "") -> str:
    columns = (*_COLUMNS[:3], *([more] if more else []), *_COLUMNS[3:])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, of_set in _by(rows, "dataset").items():
        for model, of_model in _by(of_set, "model").items():
            for bits, of_bits in sorted(_by(of_model, "bits").items(), reverse=True):
                for label, runs in _by(of_bits, "label").items():
                    first = [name, model, str(bits), *([label] if more else [])]
                    lines.append(f"| {' | '.join([*first, *_cells(runs)])} |")
    return "\n".join(lines) + "\n"


def _cells(runs: Rows) -> list[str]:
    floats, packed = ([run[name] for run in runs] for name in ("float", "packed"))
    spread = statistics.stdev(floats) if len(runs) > 1 else 0.0
    lost = statistics.mean(packed) - statistics.mean(floats)
    small = statistics.mean(run["file_bytes"] / run["float_file_bytes"] for run in runs)
    return [
        str(len(runs)),
        _spread(floats),
        f"**{_spread(packed)}**",
        f"{lost / spread:+.1f}" if spread else "",
        f"{min(run['agreement'] for run in runs):.4f}",
        f"{small:.0%}",
    ]


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _by(rows: Rows, name: str) -> dict[Any, Rows]:
    made: dict[Any, Rows] = defaultdict(list)
    for row in rows:
        made[row[name]].append(row)
    return dict(made)
