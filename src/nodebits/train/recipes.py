"""The recipe of a named model on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nodebits.core.errors import UnknownNameError
from nodebits.core.registry import MODELS
from nodebits.models.recipe import Recipe
from nodebits.tasks import find_task

# digits has 1,797 nodes of 64 features: it converges in half the epochs of a citation graph.
# digits-graphs has over a thousand graphs of 64 nodes: many more steps per epoch. Superpixels are
# fifty thousand graphs, 400 steps per epoch and more.
_SUPERPIXELS = ("MNIST", "MNIST-slic", "CIFAR10", "CIFAR10-jpeg-slic")
_EPOCHS = {"digits": 150, "digits-graphs": 40, **dict.fromkeys(_SUPERPIXELS, 40)}

# (float, quantized), where the decay of the citation graphs does not suit. Chosen on validation: 20
# labels for each of Coauthor's 15 classes need large logits, and at 2 bits a decay of 5e-4 leaves
# APPNP at 52 % where none at all gives 93 %.
_WEIGHT_DECAY = {"Coauthor-CS": (5e-5, 0.0), "Coauthor-Physics": (5e-5, 0.0)}


def find_recipe(model: str, task: str, dataset: str = "") -> Recipe:
    """Returns the recipe of a model on a task, which is that of the task's level.

    Raises:
        UnknownNameError: There is no such model, or no such task.
    """
    level = find_task(task).level.recipe
    recipes = MODELS.get(model).recipes
    if level not in recipes:
        able = [name for name in MODELS.names() if level in MODELS.get(name).recipes]
        raise UnknownNameError.for_name(f"model for {level} tasks", model, able)
    recipe: Recipe = recipes[level]
    fits = [recipe.float_fit, recipe.quantized_fit]
    if dataset in _EPOCHS:
        fits = [fit.replace(epochs=_EPOCHS[dataset]) for fit in fits]
    if dataset in _WEIGHT_DECAY:
        decays = _WEIGHT_DECAY[dataset]
        fits = [fit.replace(weight_decay=d) for fit, d in zip(fits, decays, strict=True)]
    dropout = recipe.dropouts.get(dataset, recipe.dropout)
    return replace(recipe, float_fit=fits[0], quantized_fit=fits[1], dropout=dropout)


def normalizes_features(model: str) -> bool | None:
    """Whether rows of features are divided by their sums for a model; None: as is usual.

    It is asked before the data, and so the task, are known: the recipes of a model agree on it.

    Raises:
        UnknownNameError: There is no such model.
    """
    recipes: Mapping[str, Recipe] = MODELS.get(model).recipes
    wanted = (recipe.normalize_features for recipe in recipes.values())
    return next((wish for wish in wanted if wish is not None), None)
