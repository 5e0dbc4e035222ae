"""``nodebits search``: which width at which site, found on the validation split."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.core.options import options_of
from nodebits.jobs.settings import Protocol, SearchSettings

_FORCE = [option for option in options_of(Protocol) if option.name == "force"]


def _search(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Search the bit table of a model: least cost within a drop of the validation metric.

    What is chosen has been trained, packed and measured with several seeds. Where nothing keeps the
    promise, the command says by how much the nearest misses and ends with exit code 1.

    Writes config.toml (for nodebits quantize --config), front.json, report.html and study.json to
    the output folder. Stopped with Ctrl-C, the same command continues; with a larger budget it
    goes on from where it was; --force begins anew.

    [bold]Examples[/bold]

      nodebits search --out runs/search

      nodebits search --dataset Cora --model gat --max-drop 0.5 --budget 80 --out runs/cora

      nodebits quantize --config runs/cora/config.toml --seeds 5 --out runs/cora-quantized
    """
    options.take_data(values)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.output import print_json, print_search
    from nodebits.core.files import refuse_input
    from nodebits.jobs.search import CONFIG_FILE, run_search
    from nodebits.jobs.search_config import SearchConfig

    force = values.pop("force")
    values["split"] = options.split_of(values["split"])
    settings = SearchConfig(**values)
    if (config := context.params["config"]) is not None:
        refuse_input(settings.out / CONFIG_FILE, config)
    report = run_search(settings, command=shlex.join(context.obj), force=force)
    if json:
        print_json(report)
    else:
        print_search(report, settings.out)
    if report["interrupted"]:
        print("nodebits: interrupted; the same command continues", file=sys.stderr)
        return 1
    if report["chosen"] is None:
        print(f"nodebits: {_missed(report)}", file=sys.stderr)
        return 1
    return 0


search = command(
    _search, SearchSettings, [*_FORCE, *options.DATA], negations={"search_weights": "--weights-8"}
)


def _missed(report: dict[str, Any]) -> str:
    """Why nothing was chosen: what came nearest, and by how much it misses."""
    from nodebits.report.words import drop_unit

    metric = report["metric"]
    allowed = f"{report['max_drop']:g} {drop_unit(metric)}"
    if report["nearest"] is None:
        return f"no configuration was confirmed to lose at most {allowed}"
    point, found = report["nearest"], report["nearest"]["confirmation"]
    seeds = ", ".join(map(str, found["seeds"]))
    # A point that its first seed puts out of reach is not trained again.
    with_seeds = f"over seeds {seeds}" if len(found["seeds"]) > 1 else f"with seed {seeds} alone"
    over = found["drop"] + found["error"] - report["max_drop"]
    return (
        f"no configuration loses at most {allowed} of validation {metric['title']} when confirmed; "
        f"the nearest, of {point['bits']:.2f} bits, loses {found['drop']:.2f} ± "
        f"{found['error']:.2f} {with_seeds}, {over:.2f} too many with its standard "
        "error. Raise --max-drop, --budget or --epochs"
    )
