"""``nodebits bench``: speed and memory beside torch's and PyG's operators."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options

bench = typer.Typer(
    help="Measure speed and memory beside what torch and PyG offer, in one run.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Graph = Annotated[
    str,
    typer.Option(
        "--graph",
        help="reddit-like, products-like, arxiv-like, random:NODES:EDGES, or a data set (Cora).",
    ),
]
Bits = Annotated[str, typer.Option("--bits", help="Widths, comma-separated.")]
Threads = Annotated[
    str | None,
    typer.Option("--threads", help="Numbers of threads, comma-separated; default: torch's."),
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Rounds behind a median.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all rows to this file.")
]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw them to this file (png, svg, pdf)."),
]
Communities = Annotated[
    int,
    typer.Option("--communities", min=0, help="Communities of a generated graph; 0: no locality."),
]
Reorder = Annotated[
    bool, typer.Option("--reorder/--no-reorder", help="Also with nodes renumbered for locality.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of a generated graph.")]
Only = Annotated[
    str | None,
    typer.Option("--only", help="Only implementations whose name has one of these parts."),
]
Budget = Annotated[
    float,
    typer.Option("--budget", help="Seconds after which a slow one stops at three rounds."),
]
Models = Annotated[str, typer.Option("--models", help="Of gcn, gin, sage, gat, appnp.")]
Hidden = Annotated[
    int | None,
    typer.Option(
        "--hidden", min=1, help="Hidden width; default 128, on data sets 64 (GAT: all heads)."
    ),
]


@bench.command()
def aggregate(
    context: typer.Context,
    graph: Graph = "arxiv-like",
    bits: Bits = "8,4,2,1",
    threads: Threads = None,
    columns: Annotated[int, typer.Option("--columns", min=1, help="Columns of a row.")] = 128,
    weighted: Annotated[
        bool, typer.Option("--weighted/--no-weighted", help="Also with a weight per edge.")
    ] = True,
    communities: Communities = 0,
    reorder: Reorder = False,
    seed: Seed = 0,
    repeats: Repeats = 9,
    budget: Budget = 20.0,
    only: Only = None,
    json: JsonFile = None,
    plot: PlotFile = None,
    force: options.Force = False,
    cache: options.Cache = None,
    data_root: options.DataRoot = None,
    debug: options.Debug = False,
) -> None:
    """Sums over neighbours.

    [bold]Example[/bold]

      nodebits bench aggregate --graph reddit-like --bits 8,4,2,1 --threads 1,2 --json sums.json
    """
    _run(
        context,
        json,
        plot,
        force,
        what="aggregate",
        graph=graph,
        bits=_numbers(bits, "--bits"),
        threads=_numbers(threads, "--threads"),
        columns=columns,
        weighted=weighted,
        communities=communities,
        reorder=reorder,
        seed=seed,
        repeats=repeats,
        budget=budget,
        only=_names(only),
        cache=cache,
        data_root=data_root,
    )


@bench.command()
def dense(
    context: typer.Context,
    shape: Annotated[
        str, typer.Option("--shape", metavar="NxKxM", help="Rows, inputs and outputs.")
    ] = "232965x600x128",
    bits: Bits = "8,4,2,1",
    threads: Threads = None,
    repeats: Repeats = 9,
    budget: Budget = 20.0,
    only: Only = None,
    json: JsonFile = None,
    plot: PlotFile = None,
    force: options.Force = False,
    debug: options.Debug = False,
) -> None:
    """Products of rows and a weight matrix.

    [bold]Example[/bold]

      nodebits bench dense --shape 232965x600x128 --threads 2
    """
    sizes = _numbers(shape.replace("x", ","), "--shape")
    if len(sizes) != 3:
        raise typer.BadParameter(f"--shape is {shape!r}: write NxKxM, such as 232965x600x128")
    _run(
        context,
        json,
        plot,
        force,
        what="dense",
        shape=sizes,
        bits=_numbers(bits, "--bits"),
        threads=_numbers(threads, "--threads"),
        repeats=repeats,
        budget=budget,
        only=_names(only),
    )


@bench.command()
def model(
    context: typer.Context,
    graph: Graph = "arxiv-like",
    models: Models = "gcn,gin,sage,gat,appnp",
    hidden: Hidden = None,
    bits: Bits = "8,4,2",
    threads: Threads = None,
    communities: Communities = 0,
    reorder: Reorder = False,
    seed: Seed = 0,
    repeats: Repeats = 9,
    budget: Budget = 20.0,
    only: Only = None,
    json: JsonFile = None,
    plot: PlotFile = None,
    force: options.Force = False,
    cache: options.Cache = None,
    data_root: options.DataRoot = None,
    debug: options.Debug = False,
) -> None:
    """Forwards of whole two-layer models (APPNP: ten steps) on all nodes.

    [bold]Example[/bold]

      nodebits bench model --graph PubMed --models gcn,gat --bits 4 --threads 2
    """
    _run(
        context,
        json,
        plot,
        force,
        what="model",
        graph=graph,
        models=_names(models),
        hidden=hidden,
        bits=_numbers(bits, "--bits"),
        threads=_numbers(threads, "--threads"),
        communities=communities,
        reorder=reorder,
        seed=seed,
        repeats=repeats,
        budget=budget,
        only=_names(only),
        cache=cache,
        data_root=data_root,
    )


@bench.command()
def train(
    context: typer.Context,
    graph: Graph = "arxiv-like",
    models: Models = "gcn",
    hidden: Hidden = None,
    bits: Bits = "4",
    threads: Threads = None,
    repeats: Repeats = 15,
    budget: Budget = 20.0,
    only: Only = None,
    json: JsonFile = None,
    plot: PlotFile = None,
    force: options.Force = False,
    cache: options.Cache = None,
    data_root: options.DataRoot = None,
    debug: options.Debug = False,
) -> None:
    """Training steps: PyG's float model, quantization-aware, Degree-Quant.

    [bold]Example[/bold]

      nodebits bench train --graph PubMed --models gcn --bits 8,4
    """
    _run(
        context,
        json,
        plot,
        force,
        what="train",
        graph=graph,
        models=_names(models),
        hidden=hidden,
        bits=_numbers(bits, "--bits"),
        threads=_numbers(threads, "--threads"),
        repeats=repeats,
        budget=budget,
        only=_names(only),
        cache=cache,
        data_root=data_root,
    )


@bench.command()
def growth(
    context: typer.Context,
    first: Annotated[int, typer.Option("--from", help="Fewest edges.")] = 100_000,
    last: Annotated[int, typer.Option("--to", help="Most edges.")] = 100_000_000,
    bits: Bits = "8,4,2,1",
    threads: Threads = None,
    columns: Annotated[int, typer.Option("--columns", min=1, help="Columns of a row.")] = 128,
    repeats: Repeats = 9,
    budget: Budget = 20.0,
    json: JsonFile = None,
    plot: PlotFile = None,
    force: options.Force = False,
    cache: options.Cache = None,
    debug: options.Debug = False,
) -> None:
    """Seconds against edges, and the slope on logarithmic scales.

    [bold]Example[/bold]

      nodebits bench growth --to 10000000 --threads 2 --plot growth.png
    """
    _run(
        context,
        json,
        plot,
        force,
        what="growth",
        edges=(first, last),
        bits=_numbers(bits, "--bits"),
        threads=_numbers(threads, "--threads"),
        columns=columns,
        repeats=repeats,
        budget=budget,
        cache=cache,
    )


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    parts = _names(text)
    if any(not part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{option} is {text!r}: write whole numbers, such as 8,4")
    return tuple(int(part) for part in parts)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _run(
    context: typer.Context,
    json: Path | None,
    plot: Path | None,
    force: bool,
    **settings: Any,
) -> None:
    from contextlib import ExitStack

    from rich.console import Console

    from nodebits.bench.speed.run import SpeedSettings, run_speed
    from nodebits.cli.output import print_speed
    from nodebits.core.files import (
        ensure_writable_folder,
        refuse_existing,
        write_atomically,
        writing,
    )
    from nodebits.report.speed import check_plot_path, plot_report

    checked = SpeedSettings(**settings)
    if plot is not None:
        check_plot_path(plot)
    with ExitStack() as locks:
        files = [file for file in (json, plot) if file is not None]
        for file in files:
            ensure_writable_folder(file.absolute().parent)
            locks.enter_context(writing(file))
        refuse_existing(files, force, "--force")
        with Console(stderr=True).status("measuring") as status:
            report = run_speed(checked, status.update)
        print_speed(report)
        if json is not None:
            # Paths are the machine's, not the measurement's.
            hidden = ("--cache", "--data-root", "--json", "--plot")
            document = report.to_json(shlex.join(_without(context.obj, hidden)))
            write_atomically(json, (json_module.dumps(document, indent=1) + "\n").encode())
        if plot is not None:
            plot_report(report, plot)


def _without(arguments: list[str], hidden: tuple[str, ...]) -> list[str]:
    """The command line less options of these names and their values."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in hidden:
            kept.append(argument)
        skip = not skip and argument in hidden
    return kept
