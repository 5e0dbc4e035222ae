"""``nodebits check``: what would become of a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Checked

_OF_ITS_OWN: dict[str, Any] = {
    "model": Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODULE:NAME",
            help="A model of your own: a class or function that makes it, or the model "
            "itself. The module is imported.",
        ),
    ],
    "data": Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="PATH",
            exists=True,
            help="Data of your own, one graph: a folder of tables (nodes, edges), .pt, or .npz; "
            "nothing in it is run.",
        ),
    ],
}


def _check(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Say what of a model will run on integers, on tiles of decoded rows, or in float.

    [bold]Example[/bold]

      nodebits check --model my_pkg.models:Net --data graph.pt

      nodebits check --model my_pkg.models:Net --data ./shop --target price
    """
    from dataclasses import asdict

    from nodebits.cli.output import print_json
    from nodebits.jobs.own_model import arguments_for, made
    from nodebits.runtime.check import check as run

    asked = Checked(**values)
    graph, outputs = _graph(asked)
    arguments = arguments_for(asked.model, asked.model_args, graph.num_features, outputs)
    found = run(made(asked.model, arguments), graph, limit=asked.limit)
    if json:
        # Widths are keys of objects here: text.
        whole = asdict(found)
        for part in (whole, *whole["layers"]):
            part["errors"] = {str(bits): error for bits, error in part["errors"].items()}
        print_json(whole)
    else:
        typer.echo(str(found))
    return 0


check = command(_check, Checked, spelled=_OF_ITS_OWN)


def _graph(asked: Checked) -> tuple[Any, int]:
    """The graph, and the outputs of a model for its targets.

    A PyG object of which nothing more is said is taken as it is: it needs no targets, and may hold
    what a model of one's own reads beyond features and edges.

    Raises:
        ConfigError: If there are many graphs, or several types of nodes.
    """
    from nodebits.core.errors import ConfigError
    from nodebits.data import load_dataset
    from nodebits.data.own.pyg_objects import read_pt

    data = asked.data
    roles = {"task": asked.task, "target": asked.target, "ignore": asked.ignore}
    given: dict[str, Any] = {name: value for name, value in roles.items() if value is not None}
    if data.suffix == ".pt" and not given:
        found: Any = read_pt(data)
        if isinstance(found, list):
            raise ConfigError(f"--data {data} holds {len(found)} graphs: it must be one PyG Data")
        return found, _outputs(found)
    named: dict[str, Any] = {"data": data}
    options.take_data(named, None)
    dataset = load_dataset(named["dataset"], **given)
    if dataset.many_graphs:
        raise ConfigError(f"--data {data} holds {len(dataset)} graphs: it must be one")
    graph = dataset.content if dataset.parts is None else dataset.parts[0]
    return graph, dataset.num_classes


def _outputs(graph: Any) -> int:
    """Outputs of a model for the targets of a graph: its classes, or its columns of numbers."""
    y = graph.get("y")
    if y is None:
        return 1
    if y.dim() > 1:
        return int(y.size(-1))
    return 1 if y.is_floating_point() or not y.numel() else int(y.max()) + 1
