"""``nodebits init``: a commented file of settings for data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


def init(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="PATH",
            exists=True,
            help="Data of your own: a folder of tables (nodes, edges, graphs), .pt, or .npz.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.toml", help="File of settings to write.")
    ] = Path("nodebits.toml"),
    task: options.Task = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Columns, array or field to predict.")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option("--ignore", help="Columns that are left out.")
    ] = None,
    split: options.Split = None,
    force: options.Force = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Look at data of your own, and write settings for nodebits quantize with what was found.

    [bold]Example[/bold]

      nodebits init --data ./shop --target price --out shop.toml

      nodebits quantize --config shop.toml --out runs/shop
    """
    values: dict[str, Any] = {"data": data, "dataset": None}
    options.take_data(values, None)
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed, write_atomically
    from nodebits.data import load_dataset

    targets = () if target is None else options.names(target, "--target")
    left_out = () if ignore is None else options.names(ignore, "--ignore")
    with claimed({"--out": out}, [], force, "--force"):
        dataset = load_dataset(
            values["dataset"],
            split=options.split_of(split),
            task=task,
            target=targets,
            ignore=left_out,
        )
        said = targets or tuple(dataset.about.get("target", ()))
        write_atomically(out, _toml(values["dataset"], dataset, said, left_out, split).encode())
    if json:
        print_json({"out": str(out), "task": dataset.task, "notes": dataset.notes})
    else:
        typer.echo(f"{dataset!r}")
        typer.echo(dataset.notes)
        typer.echo(f"settings written to {out}: nodebits quantize --config {out} --out DIR")


def _toml(path: str, dataset: Any, target: Any, ignore: Any, split: str | None) -> str:
    import json

    from nodebits.tasks import find_task, task_names

    task = find_task(dataset.task)
    text = json.dumps  # strings and lists of TOML are those of JSON
    lines = [
        "# Settings of nodebits quantize. What begins with '#' is not read: take the sign away to",
        "# set it. The command line wins over this file.",
        "",
        f"dataset = {text(path)}",
        *(f"# {sentence.strip()}" for sentence in dataset.notes.split(". ") if sentence.strip()),
        "",
        f"# What is predicted: {', '.join(task_names(task.level))}.",
        f"task = {text(task.name)}",
        f"target = {text(list(target))}" if target else '# target = ["label"]',
        f"ignore = {text(list(ignore))}" if ignore else '# ignore = ["name"]',
        "",
        "# How rows are divided: a seed, shares, a column of train, val and test, or time.",
        f"split = {text(split)}" if split else '# split = "0.8/0.1/0.1"',
        "# seed = 0",
        "",
        f"# Measured by: {', '.join(task.metrics)}. Trained on: {', '.join(task.losses)}.",
        f"metric = {text(task.metric.name)}",
        f"# loss = {text(task.criterion.name)}",
        '# class_weight = "balanced"',
        "",
        "# One of 'nodebits models', or MODULE:NAME of your own with model_args as JSON.",
        'model = "gcn"',
        "# hidden = 64",
        "# layers = 2",
        "",
        "# One of 'nodebits methods', and the width of numbers, 1 to 8.",
        'method = "degree-quant"',
        "bits = 4",
        "",
        "# Passes over the training data; the best on validation is kept.",
        "# epochs = 200",
        "seeds = 1",
    ]
    return "\n".join(lines) + "\n"
