"""``nodebits predict``: what a model says of every node or graph."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.predictions import FORMATS, columns_of, rows_of
from nodebits.cli.settings import Predicted
from nodebits.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from nodebits.train.inputs import Inputs

_Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help=".npy: predictions, such as int64 class indices; .csv, .parquet: id, prediction and "
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

    A .csv file has a header and a line per row: node (or graph, or source and target), and what the
    task says. That is of a classification class, logit_0, logit_1, ...; the softmax of the logits
    are probabilities. Data of your own keep their ids, and need no targets.

    [bold]Example[/bold]

      nodebits predict runs/cora/model.safetensors --dataset Cora --out pred.npy

      nodebits predict runs/shop/model.safetensors --data ./new --out pred.csv

      nodebits predict runs/cora/model.safetensors --nodes 1,5,9 --num-neighbors 10,10 --out p.csv

      nodebits predict runs/shop/model.safetensors --data ./large --memory 4GiB --out pred.npy

      torchrun --nproc-per-node 4 -m nodebits predict runs/cora/model.safetensors
      --data parts --out pred.csv
    """
    out = values["out"]
    if out.suffix not in FORMATS:
        raise typer.BadParameter(
            f"--out is {str(out)!r}: its name must end in .npy, .csv or .parquet"
        )
    if (values["nodes"] is None) != (values["num_neighbors"] is None):
        raise typer.BadParameter(
            "--nodes and --num-neighbors go together, such as --nodes 1,5,9 --num-neighbors 10,10 "
            "(-1 for all)"
        )
    if values["seed"] is not None and values["nodes"] is None:
        raise typer.BadParameter("--seed is of the sample for --nodes, which are not given")
    if values["memory"] is not None and (values["nodes"] or values["features"]):
        raise typer.BadParameter("--memory is for all nodes and float features: leave out the rest")
    data = values["data"]
    if data is not None and (data / "partition.json").is_file():
        return _of_parts(json, values)
    options.take_data(values, None)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import one_graph, opened, title_of, trained_on
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed, write_atomically
    from nodebits.train import predict_logits

    asked = Predicted(**{**values, "split": options.split_of(values["split"])})
    with claimed({"--out": out}, [asked.model, asked.features], asked.force, "--force"):
        found = opened(asked, asks=True)
        packed, problem, name = found.packed, found.problem, found.name
        features = None if asked.features is None else packed.load_input(asked.features)
        if asked.nodes is not None:
            outputs = _of_nodes(packed, one_graph(problem, name), features, asked)
        elif asked.memory is not None:
            outputs = _from_files(packed, one_graph(problem, name), asked.memory, out)
        elif features is None:
            outputs = predict_logits(packed, problem)
        else:
            outputs = packed.predict(features, one_graph(problem, name).edge_index)
        count = int(outputs.size(0))
        numbers = range(count) if asked.nodes is None else asked.nodes
        classes = found.dataset.about.get("classes")
        rows = rows_of(
            problem.task, found.dataset.ids, getattr(problem, "pairs", None), list(numbers)
        )
        columns = columns_of(problem.task, outputs, classes)
        write_atomically(out, FORMATS[out.suffix](problem.task, outputs, rows, columns))
        if asked.memory is not None:
            shutil.rmtree(_layers_of(out))
    notes = "" if found.dataset.ids is None else found.dataset.notes
    if json:
        about = {"dataset": name, "trained_on": trained_on(packed, name) or name}
        print_json({**about, "out": str(out), "count": count, "notes": notes})
    else:
        predicted = problem.task.predicts
        if notes:
            typer.echo(notes)
        typer.echo(f"{count} {predicted} for {title_of(packed, name)} written to {out}")
    return 0


def _of_parts(json: bool, values: dict[str, Any]) -> int:
    """Predictions for a folder of parts, written by the first process."""
    folder, out = values.pop("data"), values["out"]
    if values["dataset"] is not None:
        raise typer.BadParameter(f"--data {folder} and --dataset {values['dataset']}: give one")
    from nodebits.cli.output import print_json
    from nodebits.cli.parts import predict_parts
    from nodebits.core.files import claimed, write_atomically
    from nodebits.tasks import find_task

    asked = Predicted(**values)
    first = os.environ.get("RANK", "0") == "0"
    with claimed({"--out": out} if first else {}, [asked.model], asked.force, "--force"):
        found = predict_parts(asked, folder)
        if found is None:
            return 0
        spec, contents = found.packed.spec, found.contents
        task = find_task(found.packed.metadata.get("task", "node") if spec is None else spec.task)
        count = int(found.outputs.size(0))
        rows = rows_of(task, contents.ids, None, range(count))
        columns = columns_of(task, found.outputs, contents.classes)
        write_atomically(out, FORMATS[out.suffix](task, found.outputs, rows, columns))
    sent = sum(found.sent)
    if json:
        about = {"dataset": contents.name, "out": str(out), "count": count}
        print_json({**about, "sent": found.sent, "resumed": found.resumed})
        return 0
    if found.resumed:
        typer.echo(f"went on after layer {found.resumed}, which an earlier run had finished")
    for step in found.rounded:
        typer.echo(f"{step}: torch rounds it by place, so that last bits depend on the division")
    hubs = f" and {contents.partial} partial sums of hubs" if contents.partial else ""
    typer.echo(
        f"{count} {task.predicts} for {contents.name} written to {out}; {contents.parts} "
        f"process(es) sent {sent} bytes for {contents.boundary} boundary rows{hubs} a layer"
    )
    return 0


def _layers_of(out: Path) -> Path:
    """Where the layers of a run stand until it is done: one that was stopped goes on from them."""
    return out.with_name(f"{out.name}.layers")


def _from_files(packed: Any, inputs: Inputs, memory: str, out: Path) -> Tensor:
    """Outputs for all nodes of one graph, layer by layer."""
    from nodebits.core.signature import names_of
    from nodebits.out_of_core.predict import WEIGHT, predict_out_of_core

    given, others = inputs.arguments(packed)
    named = {**dict(zip(names_of(packed.module.forward)[2:], given[2:], strict=False)), **others}
    weight = named.pop(WEIGHT, None)
    if len(given) < 2 or named:
        raise ConfigError(
            "--memory runs models of features, edges and edge_weight; this one is given more: "
            f"{', '.join(named) or 'other arguments'}"
        )
    folder = _layers_of(out)
    return predict_out_of_core(packed, *given[:2], edge_weight=weight, folder=folder, memory=memory)


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


predict = command(
    _predict,
    Predicted,
    options.DATA,
    spelled={**options.OF_SAVED_MODEL, "out": _Out, "features": _Features},
)
