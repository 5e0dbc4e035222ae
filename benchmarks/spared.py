r"""What 8 bits behind sums and behind the last convolution give, and what each of them does.

    python benchmarks/spared.py --data-root DATA --datasets Mutagenicity PROTEINS --folds 3 --bits 2
    python benchmarks/spared.py --data-root DATA --datasets REDDIT-BINARY --folds 1 --bits 4 \
        --epochs 20
    python benchmarks/spared.py --table

GIN with Degree-Quant on graphs: with 8 bits in both places (the default), in one of them, in none.
All variants of a fold share their float model and its training. Rows are those of ``accuracy.py``
with a label; those that are there are not run again.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from accuracy import RESULTS, Cell, append_row, read_rows, run
from nodebits.data import load_dataset

ROWS = RESULTS / "spared.jsonl"
VARIANTS = {"both": (), "sums": ("head_bits",), "heads": ("sum_bits",)}
VARIANTS["none"] = (*VARIANTS["sums"], *VARIANTS["heads"])
TITLE = """# Where bits save nothing

Made by `python benchmarks/spared.py --table`; its text says what was measured, and how.

GIN of the recipe's size, Degree-Quant, test accuracy in percent, mean ± standard deviation.
*Trained alike* is a float model with the quantized one's training.
The last four columns say where 8 bits are kept, and what activations then have on average.
The average counts every row once, also those that need no memory.

"""


def main() -> None:
    """Runs what is missing, or renders the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root")
    parser.add_argument("--cache")
    parser.add_argument("--datasets", nargs="+", default=["Mutagenicity", "PROTEINS"])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--bits", nargs="+", type=int, default=[2])
    parser.add_argument("--epochs", type=int, default=40, help="of float and quantized training")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--runs", type=Path, default=Path("runs/spared"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        text = TITLE + table(read_rows(asked.out))
        asked.out.with_suffix(".md").write_text(text)
        print(text)
        return
    torch.set_num_threads(asked.threads)
    asked.runs.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read_rows(asked.out)}
    for name in asked.datasets:
        dataset = load_dataset(name, asked.data_root, cache=asked.cache)
        for fold in range(asked.folds):
            for bits in asked.bits:
                for variant in asked.variants:
                    name_of = dataset.name, "gin", "degree-quant", "default"
                    cell = Cell(*name_of, bits, 0, fold, variant)
                    if cell.key() in done:
                        continue
                    row = run(cell, dataset, settings(asked, bits, variant))
                    row.pop("sites")
                    append_row(asked.out, row)
                    print(name, bits, variant, fold, row["float"], row["packed"], flush=True)


def settings(asked: argparse.Namespace, bits: int, variant: str) -> argparse.Namespace:
    """What ``accuracy.py`` reads from its own arguments."""
    return argparse.Namespace(
        hidden=None,
        batch_size=None,
        epochs=asked.epochs,
        float_epochs=asked.epochs,
        lr=None,
        float_lr=None,
        quantizer_lr=None,
        teacher="",
        runs=asked.runs,
        set=[f"{name}={bits}" for name in VARIANTS[variant]],
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A line per data set and width."""
    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        found = groups[row["dataset"], row["bits"]]
        found.setdefault(row["label"], []).append(row)
    names = {"both": "both, the default", "sums": "sums", "heads": "heads", "none": "none"}
    columns = ["data set", "bits", "folds", "epochs", "float", "trained alike", *names.values()]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (dataset, bits), by_label in sorted(groups.items()):
        first = by_label.get("both") or next(iter(by_label.values()))
        cells = [dataset, bits, len(first), first[0]["fit"]["epochs"]]
        cells += [spread(first, "float"), spread(first, "float_distilled")]
        for label in names:
            own = by_label.get(label, [])
            text = spread(own, "packed")
            if own:
                text += f" at {statistics.mean(row['average_bits'] for row in own):.1f}"
            cells.append(text if len(own) == len(first) or not own else f"{text} ({len(own)})")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def spread(rows: list[dict[str, Any]], figure: str) -> str:
    """Mean and deviation in percent; empty without rows."""
    if not rows:
        return ""
    values = [100 * row[figure] for row in rows]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
