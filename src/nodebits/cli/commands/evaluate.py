"""``nodebits evaluate``: metric and loss of a saved model on a data set."""

from __future__ import annotations

from typing import Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import OneFold


def _evaluate(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Print the metric of a packed model, such as accuracy, on the train, val and test split.

    [bold]Example[/bold]

      nodebits evaluate runs/digits/model.safetensors
    """
    options.take_data(values, None)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json, print_metrics
    from nodebits.train import evaluate as measure
    from nodebits.train.problem import SPLITS

    asked = OneFold(**{**values, "split": options.split_of(values["split"])})
    packed, problem, name = open_model_and_data(asked, asked.fold)
    metrics = {split: measure(packed, problem, split) for split in SPLITS}
    if json:
        figures = {split: value.to_json() for split, value in metrics.items()}
        print_json({"dataset": name, "trained_on": trained_on(packed, name) or name, **figures})
    else:
        print_metrics(title_of(packed, name), metrics, problem.task)
    return 0


evaluate = command(_evaluate, OneFold, options.DATA, spelled=options.OF_SAVED_MODEL)
