"""``nodebits evaluate``: accuracy of a saved model on a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from nodebits.cli import options


def evaluate(
    model: options.ModelFile,
    dataset: options.Dataset = "digits",
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    fold: Annotated[
        int | None, typer.Option(min=0, max=9, help="Fold of the ten-fold protocol (TU sets).")
    ] = None,
    threads: options.Threads = None,
    config: options.ConfigFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print the accuracy of a packed model on the train, validation and test split.

    [bold]Example[/bold]

      nodebits evaluate runs/digits/model.safetensors --dataset digits
    """
    from nodebits.cli.loading import open_model_and_data
    from nodebits.cli.output import print_json, print_metrics
    from nodebits.train import evaluate as measure
    from nodebits.train.problem import SPLITS

    packed, problem, name = open_model_and_data(model, dataset, data_root, cache, fold, threads)
    metrics = {split: measure(packed, problem, split) for split in SPLITS}
    if json:
        print_json({"dataset": name, **{split: vars(value) for split, value in metrics.items()}})
    else:
        print_metrics(name, metrics)
