"""``nodebits compare``: methods and widths beside each other."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.jobs.settings import CompareSettings


def _compare(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Run methods at several widths, and write a leaderboard of what they reach.

    Each row is a quantize job: trained, packed, saved, loaded back and measured. Float models are
    trained once per seed and shared. The output folder keeps rows.jsonl, a row per run, and draws
    leaderboard.md, leaderboard.csv and report.html from it. Rows that are there are not run again:
    after Ctrl-C, or with more methods, widths or data sets, the same folder goes on.

    [bold]Examples[/bold]

      nodebits compare --methods uniform,degree-quant --bits 8,4 --out runs/compare

      nodebits compare --dataset Cora --methods all --seeds 3 --out runs/cora

      nodebits compare --dataset Cora --methods degree-quant:published,a2q --out runs/cora
    """
    options.take_data(values)
    if not values["render_only"]:
        options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.output import print_comparison, print_json
    from nodebits.jobs.compare import CompareConfig, run_compare

    values["split"] = options.split_of(values["split"])
    values["use_node_attr"] = bool(values["use_node_attr"])
    config = CompareConfig(**values)
    found = run_compare(config, command=shlex.join(context.obj))
    if json:
        print_json(found)
    else:
        print_comparison(found["rows"], config.out)
    if found["interrupted"]:
        print("nodebits: interrupted; the same command continues", file=sys.stderr)
        return 1
    if found["failed"]:
        count = len(found["failed"])
        print(
            f"nodebits: {count} of {len(found['rows'])} rows failed; leaderboard.md says why, the "
            "same command tries them again",
            file=sys.stderr,
        )
        return 1
    return 0


compare = command(_compare, CompareSettings, options.DATA)
