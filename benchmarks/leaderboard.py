"""The committed leaderboard: all methods on all data sets of one grid file, by one command.

    python benchmarks/leaderboard.py --data-root DATA
    python benchmarks/leaderboard.py --write
    python benchmarks/leaderboard.py --against

The first runs what ``runs/leaderboard`` has no row of yet: after an interruption, or with more in
the grid, the same command goes on. A run that fails keeps its row, with its error, and the exit
status is 1. The second copies the rows to ``results/leaderboard`` and draws the tables. The third,
on another machine, says which of its rows differ from the committed ones.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparing import run_all
from nodebits.jobs.compare import CompareConfig

HERE = Path(__file__).resolve().parent
GRID = HERE / "grids" / "leaderboard.toml"
COMMAND = "python benchmarks/leaderboard.py --data-root DATA"


def parts(grid: dict[str, Any], out: Path, data_root: Path | None) -> Iterator[CompareConfig]:
    """Yields the comparisons of a grid, all of a data set together.

    Args:
        grid: As in ``grids/leaderboard.toml``.
        out: Folder of all rows.
        data_root: Folder of raw data.
    """
    shared = {**grid["all"], "bits": tuple(grid["all"]["bits"])}
    for dataset, given in grid["data"].items():
        own = {key: value for key, value in given.items() if key != "epochs"}
        for group, epochs in given["epochs"].items():
            yield CompareConfig(
                out=out,
                data_root=data_root,
                dataset=dataset,
                methods=tuple(grid["methods"][group]),
                epochs=epochs,
                progress=False,
                **shared,
                **own,
            )


def main() -> int:
    """Runs the grid, or writes its results; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--write", action="store_true", help="results of the rows, run nothing")
    parser.add_argument("--against", action="store_true", help="compare with the committed rows")
    options = parser.parse_args()
    grid = tomllib.loads(options.grid.read_text(encoding="utf-8"))
    if options.write:
        from leaderboard_table import write

        write(options.out)
        return 0
    if options.against:
        from leaderboard_table import against

        differences = against(options.out)
        print("\n".join(differences) or "all rows that both have are equal")
        return 1 if differences else 0
    return run_all(parts(grid, options.out, options.data_root), COMMAND)


if __name__ == "__main__":
    sys.exit(main())
