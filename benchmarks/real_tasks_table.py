"""Markdown table of the rows that ``real_tasks.py`` wrote."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

Rows = list[dict[str, Any]]

HEADER = """# Blocks with edge features

The metric of a set on the test split at the best **validation** epoch, mean ± standard deviation
over seeds.
*Packed* is the integer model loaded back from its file.
*Rate* is that of the second training.
*Trained alike* is the float model after the same second training, at its best epoch; where a width
has another rate than float had, nothing stands there.
*Loses* is how far the packed mean is worse than that of float, in standard deviations of float.
*To bits* is the same beside the float model that was trained alike.
*Agreement* is the smallest share, over the runs, of test rows where packed equals simulated to
rounding, or says the same class.
Quantized models start from the float model and learn from its outputs, for so many epochs more.
`NAME:N` are the first N graphs of each part of the split, of AQSOL and REDDIT-BINARY N drawn ones:
such rows are no results of the set.
REDDIT-BINARY has no edge features: every edge has the same id.
*File* is a share of the file of float weights.
These rows are of the form of files before the folded one, which is smaller: see
[file_sizes.md](file_sizes.md).

"""
# By metric: what a table says of it, what a figure is multiplied by, its form, the sign of worse.
_METRICS = {
    "mae": ("mean absolute error, less is better", 1, ".3f", 1),
    "accuracy": ("accuracy in percent, more is better", 100, ".1f", -1),
}
_COLUMNS = (
    "data set", "model", "bits", "rate", "runs", "float", "trained alike", "packed", "loses",
    "to bits", "agreement", "file",
)  # fmt: skip
# Label of rows whose model has no bits: float, trained as the quantized models are.
ALIKE = "alike"


def render(rows: Rows) -> str:
    """Returns the table of all rows, what was changed in a table of its own."""
    plain = [row for row in rows if not row["label"]]
    alike = {_training(row): row["packed"] for row in rows if row["label"] == ALIKE}
    text = HEADER + _settings(plain) + "\n" + _table(plain, alike)
    labelled = [row for row in rows if row["label"] not in ("", ALIKE)]
    if labelled:
        text += "\n## Other settings\n\n"
        text += "*One width* has 8 bits nowhere, so not behind sums and convolutions either.\n"
        text += "Other names say which kind of site has 8 bits.\n\n"
        text += _table(labelled, alike, "changed")
    return text


def _settings(rows: Rows) -> str:
    """The sizes and the training that rows share."""
    columns = ("data set", "metric", "layers", "width", "epochs", "more epochs", "batches of")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, some in _by(rows, "dataset").items():
        row = some[0]
        fit, sizes = row["fit"], row["arguments"]
        first = row.get("float_epochs", fit["epochs"])  # the same where it is not said
        cells = [name, _METRICS[row["metric"]][0], sizes["layers"], sizes["hidden"]]
        cells += [first, fit["epochs"], fit["batch_size"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _table(rows: Rows, alike: dict[Any, float], more: str = "") -> str:
    columns = (*_COLUMNS[:3], *([more] if more else []), *_COLUMNS[3:])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, of_set in _by(rows, "dataset").items():
        for model, of_model in _by(of_set, "model").items():
            for bits, of_bits in sorted(_by(of_model, "bits").items(), reverse=True):
                for label, runs in _by(of_bits, "label").items():
                    first = [name, model, str(bits), *([label] if more else [])]
                    lines.append(f"| {' | '.join([*first, *_cells(runs, alike)])} |")
    return "\n".join(lines) + "\n"


def _cells(runs: Rows, alike: dict[Any, float]) -> list[str]:
    _, factor, form, worse = _METRICS[runs[0]["metric"]]
    floats, packed = ([factor * run[name] for run in runs] for name in ("float", "packed"))
    spread = statistics.stdev(floats) if len(runs) > 1 else 0.0
    same = [alike.get(_training(run)) for run in runs]
    trained = [factor * value for value in same if value is not None]
    whole = len(trained) == len(runs)

    def lost(beside: list[float]) -> str:
        more = worse * (statistics.mean(packed) - statistics.mean(beside))
        return f"{more / spread:+.1f}" if spread else ""

    small = statistics.mean(run["file_bytes"] / run["float_file_bytes"] for run in runs)
    return [
        ", ".join(sorted({f"{run['fit']['lr']:g}" for run in runs})),
        str(len(runs)),
        _spread(floats, form),
        _spread(trained, form) if whole else "",
        f"**{_spread(packed, form)}**",
        lost(floats),
        lost(trained) if whole else "",
        f"{min(run['agreement'] for run in runs):.4f}",
        f"{small:.0%}",
    ]


def _training(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a float model that was trained alike shares with a row."""
    return row["dataset"], row["model"], row["seed"], row["fit"]["lr"]


def _spread(values: list[float], form: str) -> str:
    mean = f"{statistics.mean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean


def _by(rows: Rows, name: str) -> dict[Any, Rows]:
    made: dict[Any, Rows] = defaultdict(list)
    for row in rows:
        made[row[name]].append(row)
    return dict(made)
