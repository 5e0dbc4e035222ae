"""``nodebits tune``: tiles of kernels, measured on this card for later processes."""

from __future__ import annotations

from typing import Any

import typer

from nodebits.bench.tuning.settings import Tune
from nodebits.cli.generate import command


def _tune(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Measure which tiles of the kernels are fastest on this CUDA device, and keep them.

    Later processes on this card look them up. Results have the same bits with any tiles, which is
    checked here.

    [bold]Examples[/bold]

      nodebits tune --device cuda

      nodebits tune --nodes 1000000 --columns 128 --bits 4 --only sum,product
    """
    from rich.console import Console

    from nodebits.bench.tuning.run import run_tuning
    from nodebits.cli.output import new_table, print_json, print_table

    asked = Tune(**{name: value for name, value in values.items() if value is not None})
    with Console(stderr=True).status("measuring") as status:
        made = run_tuning(asked, status.update)
    if json:
        print_json(made.to_json())
        return 0
    table = new_table(
        f"tiles on {made.card}", "kernel", "shape", "tiles", "ms", "ms by rule", "tried",
        text_columns=3,
    )  # fmt: skip
    for one in made.found:
        key, sizes, ms, rule_ms = one.choice
        tiles = ", ".join(f"{name} {size}" for name, size in sizes.items())
        shape = " x ".join(map(str, key.shape))
        table.add_row(key.kernel, shape, tiles, f"{ms:.4f}", f"{rule_ms:.4f}", str(one.tried))
    note = f"written to {made.path}; this card's processes read it when they begin"
    where = "" if asked.cache is None else f", with NODEBITS_CACHE={asked.cache}"
    print_table(table, note + where)
    return 0


tune = command(_tune, Tune, spelled={"bits": None})
