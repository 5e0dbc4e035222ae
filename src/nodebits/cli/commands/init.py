"""``nodebits init``: a commented file of settings for data of one's own."""

from __future__ import annotations

from typing import Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Described


def _init(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Look at data of your own, and write settings for nodebits quantize with what was found.

    [bold]Example[/bold]

      nodebits init --data ./shop --target price --out shop.toml

      nodebits quantize --config shop.toml --out runs/shop
    """
    data, asked = values["data"], Described(**values)
    named: dict[str, Any] = {"data": data, "dataset": None}
    options.take_data(named, None)
    from nodebits.cli.output import print_json
    from nodebits.core.files import claimed, write_atomically
    from nodebits.data import load_dataset

    path = named["dataset"]
    with claimed({"--out": asked.out}, [], asked.force, "--force"):
        dataset = load_dataset(
            path,
            split=options.split_of(asked.split),
            task=asked.task,
            target=asked.target or (),
            ignore=asked.ignore or (),
        )
        write_atomically(asked.out, _toml(path, dataset, asked).encode())
    if json:
        print_json({"out": str(asked.out), "task": dataset.task, "notes": dataset.notes})
    else:
        typer.echo(f"{dataset!r}\n{dataset.notes}")
        typer.echo(
            f"settings written to {asked.out}: nodebits quantize --config {asked.out} --out DIR"
        )
    return 0


init = command(_init, Described, spelled={"out": options.OutFile, "data": options.Data})


def _toml(path: str, dataset: Any, asked: Described) -> str:
    import json

    from nodebits.tasks import find_task, task_names

    task, ignore, split = find_task(dataset.task), asked.ignore, asked.split
    target = asked.target or dataset.about.get("target")
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
