"""``nodebits check``: what would become of a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


def check(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODULE:NAME",
            help="A model of your own: a class or function that makes it, or the model "
            "itself. The module is imported.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            exists=True,
            dir_okay=False,
            help="A PyG Data object written by torch.save; nothing in it is run.",
        ),
    ],
    model_args: Annotated[
        str | None,
        typer.Option(
            help="JSON object of arguments; in_channels and out_channels follow from the data.",
        ),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(min=1e-6, help="Relative error of a layer's result that counts as safe."),
    ] = 0.05,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what of a model will run on integers, on tiles of decoded rows, or in float.

    [bold]Example[/bold]

      nodebits check --model my_pkg.models:Net --data graph.pt
    """
    from dataclasses import asdict

    from nodebits.cli.output import print_json
    from nodebits.core.errors import ConfigError
    from nodebits.data.own.pyg_objects import read_pt
    from nodebits.jobs.own_model import arguments_for, made
    from nodebits.runtime.check import check as run

    graph = read_pt(data)
    if isinstance(graph, list):
        raise ConfigError(f"--data {data} holds {len(graph)} graphs: it must be one PyG Data")
    arguments = arguments_for(model, model_args, graph.num_features, _outputs(graph))
    found = run(made(model, arguments), graph, limit=limit)
    if json:
        # Widths are keys of objects here: text.
        whole = asdict(found)
        for part in (whole, *whole["layers"]):
            part["errors"] = {str(bits): error for bits, error in part["errors"].items()}
        print_json(whole)
    else:
        typer.echo(str(found))


def _outputs(graph: Any) -> int:
    """Outputs of a model for the targets of a graph: its classes, or its columns of numbers."""
    y = graph.get("y")
    if y is None:
        return 1
    if y.dim() > 1:
        return int(y.size(-1))
    return 1 if y.is_floating_point() or not y.numel() else int(y.max()) + 1
