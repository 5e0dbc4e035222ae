"""Graph-level sets: packed low-bit models beside float and beside the published tables.

    python benchmarks/graph_level.py --data-root DATA --datasets ESOL AQSOL --models gin
    python benchmarks/graph_level.py --data-root DATA --datasets MNIST:2000 --models gin \
        --methods degree-quant --bits 4 --epochs 20 --seeds 1
    python benchmarks/graph_level.py --table

``grids/graph_level.toml`` names what is run without arguments: superpixels, molecules, social and
chemical graphs. ``NAME:N`` takes the first N graphs of each part of a split. Rows go to
``runs/graph_level`` as they come, and those that are there are not run again. ``--table`` takes
them over into ``results/graph_level.jsonl`` and draws ``results/graph_level.md``.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparing import run_all
from nodebits.data.catalogue import find_entry
from nodebits.jobs.compare import CompareConfig

HERE = Path(__file__).resolve().parent
GRID = HERE / "grids" / "graph_level.toml"
# Published GIN rows of social and chemical graphs are of other sizes: these are the recipe's.
OWN_SIZES = ("REDDIT-BINARY", "PROTEINS", "DD", "Mutagenicity")


def comparisons(grid: dict[str, Any], asked: argparse.Namespace) -> Iterator[CompareConfig]:
    """Yields a comparison per data set and model.

    Args:
        grid: As in ``grids/graph_level.toml``.
        asked: Arguments that narrow it.
    """
    for name in asked.datasets or grid["data"]:
        # The name of what is at hand: made superpixels have another than released ones.
        dataset = find_entry(name, asked.data_root).name
        runs = dict(grid["data"][name.partition(":")[0]])
        for given in ("seeds", "folds"):
            if getattr(asked, given) is not None and given in runs:
                runs[given] = getattr(asked, given)
        for model in asked.models or grid["models"]:
            yield CompareConfig(
                out=asked.out,
                data_root=asked.data_root,
                cache=asked.cache,
                dataset=dataset,
                model=model,
                methods=tuple(asked.methods or grid["methods"]),
                bits=tuple(asked.bits or grid["bits"]),
                epochs=asked.epochs,
                float_epochs=asked.float_epochs or asked.epochs,
                float_distilled=not asked.no_float_distilled,
                latency_repeats=5,
                threads=1,
                progress=False,
                **{"seeds": 1, **runs},
                **({} if name in OWN_SIZES else grid["models"][model]),
            )


def command(asked: argparse.Namespace) -> str:
    """The command of a row, without folders of this machine."""
    words = ["python benchmarks/graph_level.py --data-root DATA"]
    for name in ("datasets", "models", "methods", "bits"):
        if getattr(asked, name):
            words.append(f"--{name} {' '.join(map(str, getattr(asked, name)))}")
    for name in ("epochs", "float_epochs", "seeds", "folds"):
        if getattr(asked, name) is not None:
            words.append(f"--{name.replace('_', '-')} {getattr(asked, name)}")
    if asked.no_float_distilled:
        words.append("--no-float-distilled")
    return " ".join(words)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", help="default: those of the grid")
    parser.add_argument("--models", nargs="+", choices=("gin", "gcn", "gat"))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--bits", nargs="+", type=int)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--float-epochs", type=int, help="default: as many")
    parser.add_argument("--seeds", type=int, help="of sets with a split of their own")
    parser.add_argument("--folds", type=int, help="of the others")
    parser.add_argument(
        "--no-float-distilled", action="store_true", help="no float model that is trained alike"
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/graph_level"))
    parser.add_argument("--table", action="store_true", help="results of the rows, run nothing")
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the grid, or draws the table; returns the exit status."""
    asked = parse()
    if asked.table:
        from graph_level_table import write

        print(write(asked.out))
        return 0
    return run_all(
        comparisons(tomllib.loads(GRID.read_text(encoding="utf-8")), asked), command(asked)
    )


if __name__ == "__main__":
    sys.exit(main())
