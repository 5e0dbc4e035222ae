"""``nodebits bench``: speed and memory beside torch's and PyG's operators, on CPU or card."""

from __future__ import annotations

import json as json_module
import shlex
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nodebits.bench.speed.settings import (
    Aggregate,
    Dense,
    Growth,
    HostRows,
    Model,
    Molecules,
    Train,
)
from nodebits.cli.generate import command

bench = typer.Typer(
    help="Measure speed and memory beside what torch and PyG offer, in one run.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SPELLED = {
    "threads": None,  # several, unlike other commands
    "first": Annotated[int, typer.Option("--from", help="Fewest edges.")],
    "last": Annotated[int, typer.Option("--to", help="Most edges.")],
    "shape": Annotated[
        str, typer.Option("--shape", metavar="NxKxM", help="Rows, inputs and outputs.")
    ],
}
# Paths are the machine's, not the measurement's.
_HIDDEN = ("--cache", "--data-root", "--json", "--plot", "--config")


def _add(settings: type, *leave_out: str) -> Callable[[Callable[..., int]], None]:
    """Decorator: makes a command of the bench of a function and its settings."""

    def add(run: Callable[..., int]) -> None:
        made = command(run, settings, leave_out=leave_out, spelled=_SPELLED)
        bench.command(run.__name__.removeprefix("_"))(made)

    return add


@_add(Aggregate)
def _aggregate(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Sums over neighbours.

    [bold]Example[/bold]

      nodebits bench aggregate --graph reddit-like --bits 8,4,2,1 --threads 1,2 --json sums.json

      nodebits bench aggregate --graph reddit-like --device cuda
    """
    return _run(context, "aggregate", values)


@_add(Dense)
def _dense(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Products of rows and a weight matrix.

    [bold]Example[/bold]

      nodebits bench dense --shape 232965x600x128 --threads 2
    """
    shape = values.pop("shape")
    parts = shape.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--shape is {shape!r}: write NxKxM, such as 232965x600x128")
    return _run(context, "dense", {**values, "shape": tuple(map(int, parts))})


@_add(Model)
def _model(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Forwards of whole two-layer models (APPNP: ten steps) on all nodes.

    [bold]Example[/bold]

      nodebits bench model --graph PubMed --models gcn,gat --bits 4 --threads 2
    """
    return _run(context, "model", values)


@_add(Train, "communities", "reorder", "seed")
def _train(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Training steps: PyG's float model, quantization-aware, Degree-Quant.

    [bold]Example[/bold]

      nodebits bench train --graph PubMed --models gcn --bits 8,4
    """
    return _run(context, "train", values)


@_add(Molecules)
def _molecules(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Forwards of models of graphs on a batch of made-up molecules.

    [bold]Example[/bold]

      nodebits bench molecules --graphs 4096 --models gcn,gin --device cuda
    """
    return _run(context, "molecules", values)


@_add(HostRows, "weighted")
def _rows(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Rows of the host's memory that a card asks for: packed ones, or copied floats.

    [bold]Example[/bold]

      nodebits bench rows --nodes 10000000 --columns 128 --device cuda
    """
    return _run(context, "rows", values)


@_add(Growth, "only", "weighted")
def _growth(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Seconds against edges, and the slope on logarithmic scales.

    [bold]Example[/bold]

      nodebits bench growth --to 10000000 --threads 2 --plot growth.png
    """
    edges = values.pop("first"), values.pop("last")
    return _run(context, "growth", {**values, "edges": edges})


def _run(context: typer.Context, what: str, values: dict[str, Any]) -> int:
    from rich.console import Console

    from nodebits.bench.device.card import require_card
    from nodebits.bench.speed.run import SpeedSettings, run_speed
    from nodebits.cli.output import print_speed
    from nodebits.core.files import claimed, write_atomically
    from nodebits.report.speed import check_plot_path, plot_report

    json, plot, force = (values.pop(name) for name in ("json", "plot", "force"))
    given = {name: value for name, value in values.items() if value is not None}
    settings = SpeedSettings(what, **given)  # type: ignore[arg-type]  # one of the literals
    if settings.device == "cuda":
        require_card(what != "rows")  # before files are claimed
    if plot is not None:
        check_plot_path(plot)
    reads = [context.params["config"]]
    with claimed({"--json": json, "--plot": plot}, reads, force, "--force"):
        with Console(stderr=True).status("measuring") as status:
            report = run_speed(settings, status.update)
        print_speed(report)
        if json is not None:
            document = report.to_json(shlex.join(_without(context.obj, _HIDDEN)))
            write_atomically(json, (json_module.dumps(document, indent=1) + "\n").encode())
        if plot is not None:
            plot_report(report, plot)
    return 0


def _without(arguments: list[str], hidden: tuple[str, ...]) -> list[str]:
    """The command line less options of these names and their values."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in hidden:
            kept.append(argument)
        skip = not skip and argument in hidden
    return kept
