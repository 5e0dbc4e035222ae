"""Data, recipe and architecture of a job, by its settings."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import HeteroData

from nodebits.core.errors import ConfigError
from nodebits.data import Dataset, load_dataset
from nodebits.jobs.experiment import Goal, make_spec
from nodebits.jobs.own_model import OwnModel, is_path, own_model, own_recipe
from nodebits.jobs.settings import Architecture, DataSettings
from nodebits.models import ModelSpec
from nodebits.train import Recipe, find_recipe
from nodebits.train.recipes import normalizes_features


def normalizes(model: str) -> bool | None:
    """As ``normalizes_features``; what is usual for the data where the model is the user's own."""
    return None if is_path(model) else normalizes_features(model)


def load_data(config: DataSettings, model: str | None) -> Dataset:
    """Loads the data of a job.

    Args:
        config: Settings.
        model: Whose recipe says what becomes of features; None: as is usual for the data.
    """
    loaded = load_dataset(
        config.dataset,
        config.data_root,
        cache=config.cache,
        split=config.split,
        normalize_features=None if model is None else normalizes(model),
        use_node_attr=bool(getattr(config, "use_node_attr", False)),
        task=config.task,
        target=config.target or (),
        ignore=config.ignore or (),
        seed=config.seed,
    )
    if isinstance(loaded.content, HeteroData):
        raise ConfigError(
            f"{config.dataset} has several types of nodes: train it in Python, nodebits.fit(model, "
            "data), prepare and convert"
        )
    return loaded


def recipe_of(model: str, dataset: Dataset) -> Recipe:
    """The recipe of a named model, or the usual one of the level."""
    if is_path(model):
        return own_recipe(dataset.task)
    return find_recipe(model, dataset.task, dataset.name)


def architecture_of(
    config: Architecture, dataset: Dataset, recipe: Recipe, **options: Any
) -> ModelSpec | OwnModel:
    """The description of the model of a job.

    Raises:
        ConfigError: Sizes are given for a model of the user's own, or arguments for a named one.
    """
    sizes = {name: getattr(config, name) for name in ("hidden", "layers", "heads", "dropout")}
    if not is_path(config.model):
        if config.model_args is not None:
            raise ConfigError(
                f"model_args is of a model of your own (MODULE:NAME), not of {config.model}"
            )
        return make_spec(dataset, config.model, recipe, **sizes, **options)
    given = [name for name, value in {**sizes, **options}.items() if value is not None]
    if given:
        raise ConfigError(
            f"{given[0]} is of named models; arguments of {config.model} are given by model_args"
        )
    return own_model(config.model, config.model_args, dataset)


def goal_of(config: DataSettings) -> Goal:
    """What is learned and measured, as the settings say."""
    weights: Any = config.class_weight
    if weights is not None and weights != "balanced":
        try:
            weights = [float(part) for part in weights.split(",")]
        except ValueError:
            raise ConfigError(
                f"class_weight is {weights!r}: write balanced, or a number per class with commas"
            ) from None
    return Goal(config.loss, config.metric, weights)
