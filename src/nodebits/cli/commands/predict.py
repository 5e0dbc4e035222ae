"""``nodebits predict``: what a model says of every node or graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Predicted

if TYPE_CHECKING:
    from torch import Tensor

    from nodebits.tasks import Task
    from nodebits.train.inputs import Inputs

_Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help=".npy: predictions, such as int64 class indices; .csv: number, prediction and "
        "outputs of every row.",
    ),
]
_Features = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Packed features of 'nodebits pack', one graph.",
    ),
]


def _predict(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Write what is predicted for every node (or graph) of a data set.

    A .csv file has a header and a line per row: node (or graph), and what the task says. That is of
    a classification class, logit_0, logit_1, ...; the softmax of the logits are probabilities.

    [bold]Example[/bold]

      nodebits predict runs/cora/model.safetensors --dataset Cora --out pred.npy

      nodebits predict runs/cora/model.safetensors --nodes 1,5,9 --num-neighbors 10,10 --out p.csv
    """
    out = values["out"]
    if out.suffix not in _FORMATS:
        raise typer.BadParameter(f"--out is {str(out)!r}: its name must end in .npy or .csv")
    if (values["nodes"] is None) != (values["num_neighbors"] is None):
        raise typer.BadParameter(
            "--nodes and --num-neighbors go together, such as --nodes 1,5,9 --num-neighbors 10,10 "
            "(-1 for all)"
        )
    if values["seed"] is not None and values["nodes"] is None:
        raise typer.BadParameter("--seed is of the sample for --nodes, which are not given")
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import one_graph, open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed, write_atomically
    from nodebits.train import predict_logits

    asked = Predicted(**{**values, "split": options.split_of(values["split"])})
    with claimed({"--out": out}, [asked.model, asked.features], asked.force, "--force"):
        packed, problem, name = open_model_and_data(asked)
        features = None if asked.features is None else packed.load_input(asked.features)
        if asked.nodes is not None:
            outputs = _of_nodes(packed, one_graph(problem, name), features, asked)
        elif features is None:
            outputs = predict_logits(packed, problem)
        else:
            outputs = packed.predict(features, one_graph(problem, name).edge_index)
        count = int(outputs.size(0))
        numbers = range(count) if asked.nodes is None else asked.nodes
        write_atomically(out, _FORMATS[out.suffix](outputs, problem.task, numbers))
    if json:
        found = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**found, "out": str(out), "count": count})
    else:
        predicted = problem.task.predicts
        typer.echo(f"{count} {predicted} for {title_of(packed, name)} written to {out}")
    return 0


def _of_nodes(packed: Any, inputs: Inputs, features: Any, asked: Predicted) -> Tensor:
    """Outputs for the nodes that were asked for, from a sample."""
    from nodebits.core.signature import names_of

    given, others = inputs.arguments(packed)
    others = {**dict(zip(names_of(packed.module.forward)[2:], given[2:], strict=False)), **others}
    outputs: Tensor = packed.predict_nodes(
        inputs.edge_index,
        inputs.x if features is None else features,
        asked.nodes,
        asked.num_neighbors or (),
        seed=asked.seed,
        **others,
    )
    return outputs


def _as_npy(outputs: Tensor, task: Task, numbers: Sequence[int]) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, task.predictions(outputs).numpy(), allow_pickle=False)
    return buffer.getvalue()


def _as_csv(outputs: Tensor, task: Task, numbers: Sequence[int]) -> bytes:
    """Floats in the fewest digits that read back as the same float32."""
    columns = task.columns(outputs)
    # An element of a float32 array is shortest; a Python float would show a float64's digits.
    cells = [[str(value) for value in column.numpy()] for column in columns.values()]
    lines = [",".join(row) for row in zip(map(str, numbers), *cells, strict=True)]
    return "\n".join([",".join([task.level.unit, *columns]), *lines, ""]).encode()


_FORMATS: dict[str, Callable[[Tensor, Task, Sequence[int]], bytes]] = {
    ".npy": _as_npy,
    ".csv": _as_csv,
}

predict = command(
    _predict,
    Predicted,
    spelled={**options.OF_SAVED_MODEL, "out": _Out, "features": _Features},
)
