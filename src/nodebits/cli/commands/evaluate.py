"""``nodebits evaluate``: accuracy of a saved model on a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from nodebits.cli import options


def evaluate(
    model: options.ModelFile,
    dataset: options.OwnDataset = None,
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    split: options.Split = None,
    use_node_attr: options.UseNodeAttr = None,
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

      nodebits evaluate runs/digits/model.safetensors
    """
    options.check_dataset(dataset, data_root)
    from nodebits.cli.loading import open_model_and_data, title_of, trained_on
    from nodebits.cli.output import print_json, print_metrics
    from nodebits.train import evaluate as measure
    from nodebits.train.problem import SPLITS

    packed, problem, name = open_model_and_data(
        model, dataset, data_root, cache, fold, threads, options.split_of(split), use_node_attr
    )
    metrics = {split: measure(packed, problem, split) for split in SPLITS}
    if json:
        figures = {split: vars(value) for split, value in metrics.items()}
        print_json({"dataset": name, "trained_on": trained_on(packed, name) or name, **figures})
    else:
        print_metrics(title_of(packed, name), metrics)
