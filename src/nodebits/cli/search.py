"""``nodebits search``: which width at which site, found on the validation split."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options

_SEARCH, _SPACE, _SIZES = "Search", "What may be chosen", "Architecture and training"


def search(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")],
    dataset: options.Dataset = "digits",
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    model: options.Model = "gcn",
    method: options.Method = "sgquant",
    objective: Annotated[
        str,
        typer.Option(help="What to make least: bytes, bits or latency.", rich_help_panel=_SEARCH),
    ] = "bytes",
    max_drop: Annotated[
        float,
        typer.Option(
            help="Points of validation accuracy to lose at most.", rich_help_panel=_SEARCH
        ),
    ] = 0.5,
    slack: Annotated[
        float,
        typer.Option(help="Further points for fine-tuning to win back.", rich_help_panel=_SEARCH),
    ] = 0.0,
    budget: Annotated[
        int, typer.Option(help="Configurations to measure.", rich_help_panel=_SEARCH)
    ] = 80,
    strategy: Annotated[
        str, typer.Option(help="tree, random, tpe or nsga2.", rich_help_panel=_SEARCH)
    ] = "tree",
    batch: Annotated[
        int, typer.Option(help="Configurations per round.", rich_help_panel=_SEARCH)
    ] = 10,
    seed: Annotated[int, typer.Option(rich_help_panel=_SEARCH, help="Of model and search.")] = 0,
    workers: Annotated[
        int, typer.Option(help="Processes that measure.", rich_help_panel=_SEARCH)
    ] = 1,
    fine_tune: Annotated[
        int,
        typer.Option(
            help="Candidates to train and confirm at most; 0 confirms calibrated models.",
            rich_help_panel=_SEARCH,
        ),
    ] = 8,
    confirm_seeds: Annotated[
        int,
        typer.Option(
            help="Seeds with which the chosen table must hold, packed.", rich_help_panel=_SEARCH
        ),
    ] = 3,
    choices: Annotated[
        str, typer.Option(help="Widths to choose from.", rich_help_panel=_SPACE)
    ] = "1,2,3,4,6,8",
    granularity: Annotated[
        str,
        typer.Option(
            help="What shares a width: uniform, layer, component, or bucket (of degrees, sgquant).",
            rich_help_panel=_SPACE,
        ),
    ] = "component",
    splits: Annotated[
        str | None,
        typer.Option(help="In-degrees at which buckets begin: 4,8,16.", rich_help_panel=_SPACE),
    ] = None,
    search_weights: Annotated[
        bool,
        typer.Option(
            "--search-weights/--weights-8",
            help="Whether weights have widths of their own.",
            rich_help_panel=_SPACE,
        ),
    ] = True,
    hidden: Annotated[
        int | None, typer.Option(help="Hidden width, all heads together.", rich_help_panel=_SIZES)
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Number of layers.", rich_help_panel=_SIZES)
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Attention heads.", rich_help_panel=_SIZES)
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Dropout probability.", rich_help_panel=_SIZES)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of fine-tuning.", rich_help_panel=_SIZES)
    ] = None,
    float_epochs: Annotated[
        int | None, typer.Option(help="Epochs of the float model.", rich_help_panel=_SIZES)
    ] = None,
    threads: options.Threads = None,
    latency_repeats: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 15,
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="Progress bars; default: on a terminal."),
    ] = None,
    force: options.Force = False,
    config: options.ConfigFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Search the bit table of a model: least cost within a drop of validation accuracy.

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
    options.check_dataset(dataset, data_root)
    from nodebits.cli.output import print_json, print_search
    from nodebits.core.files import ensure_writable_folder, refuse_existing, writing
    from nodebits.jobs.search import (
        CONFIG_FILE,
        FRONT_FILE,
        PAGE_FILE,
        STUDY_FILE,
        run_search,
    )
    from nodebits.jobs.search_config import SearchConfig

    settings = SearchConfig(
        out=out,
        dataset=dataset,
        data_root=data_root,
        cache=cache,
        model=model,
        method=method,
        objective=objective,
        max_drop=max_drop,
        slack=slack,
        budget=budget,
        strategy=strategy,
        batch=batch,
        seed=seed,
        workers=workers,
        choices=options.integers(choices, "--choices"),
        granularity=granularity,
        splits=None if splits is None else options.integers(splits, "--splits"),
        search_weights=search_weights,
        fine_tune=fine_tune,
        confirm_seeds=confirm_seeds,
        hidden=hidden,
        layers=layers,
        heads=heads,
        dropout=dropout,
        epochs=epochs,
        float_epochs=float_epochs,
        threads=threads,
        latency_repeats=latency_repeats,
        progress=progress,
    )
    ensure_writable_folder(out)
    with writing(out / FRONT_FILE):
        study = out / STUDY_FILE
        if force:
            study.unlink(missing_ok=True)
        elif not study.exists():
            refuse_existing(
                [out / name for name in (CONFIG_FILE, FRONT_FILE, PAGE_FILE)], False, "--force"
            )
        report = run_search(settings, command=shlex.join(context.obj))
    if json:
        print_json(report)
    else:
        print_search(report, out)
    if report["interrupted"]:
        print("nodebits: interrupted; the same command continues", file=sys.stderr)
        return 1
    if report["chosen"] is None:
        print(f"nodebits: {_missed(report)}", file=sys.stderr)
        return 1
    return 0


def _missed(report: dict[str, Any]) -> str:
    """Why nothing was chosen: what came nearest, and by how much it misses."""
    allowed = f"{report['max_drop']:g} points"
    if report["nearest"] is None:
        return f"no configuration was confirmed to lose at most {allowed}"
    point, found = report["nearest"], report["nearest"]["confirmation"]
    over = found["drop"] + found["error"] - report["max_drop"]
    return (
        f"no configuration loses at most {allowed} of validation accuracy when confirmed; the "
        f"nearest, of {point['bits']:.2f} bits, loses {found['drop']:.2f} ± {found['error']:.2f} "
        f"over seeds {', '.join(map(str, found['seeds']))}, {over:.2f} too many with its standard "
        "error. Raise --max-drop, --budget or --epochs"
    )
