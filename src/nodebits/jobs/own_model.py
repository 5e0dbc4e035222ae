"""A model of the user's own, by the import path of what makes it."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nodebits.core.errors import ConfigError
from nodebits.data import Dataset
from nodebits.models.recipe import GRAPH, NODE, Recipe
from nodebits.tasks import find_task


@dataclass(frozen=True)
class OwnModel:
    """What a model of the user's own is made of; jobs treat it as they do a ``ModelSpec``.

    Attributes:
        path: ``MODULE:NAME`` of a class, a function, or a module that is made.
        task: Name of the task it is for.
        arguments: Of the class or function.
    """

    path: str
    task: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The model, anew.

        Raises:
            ConfigError: It cannot be imported or made.
        """
        return made(self.path, self.arguments)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {"name": self.path, "task": self.task, "arguments": dict(self.arguments)}


def is_path(model: str) -> bool:
    """Whether a name is that of a model of the user's own."""
    return ":" in model


def read_arguments(text: str | None) -> dict[str, Any]:
    """Reads ``--model-args``.

    Raises:
        ConfigError: It is no JSON object.
    """
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"model-args is {text!r}, not JSON ({error}): write it as '{{\"hidden\": 64}}'"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"model-args is {text!r}: it must be an object of arguments by name")
    return found


def own_model(path: str, text: str | None, dataset: Dataset) -> OwnModel:
    """The description of a model for a data set.

    Where its constructor names ``in_channels`` and ``out_channels`` and the arguments do not, they
    are the data's numbers of features and outputs.

    Raises:
        ConfigError: It cannot be imported or made.
    """
    arguments = arguments_for(path, text, dataset.num_features, dataset.num_classes)
    return OwnModel(path, dataset.task, arguments)


def arguments_for(path: str, text: str | None, features: int, outputs: int) -> dict[str, Any]:
    """What makes a model for data of so many features and outputs.

    Args:
        path: ``MODULE:NAME``.
        text: ``--model-args``.
        features: What ``in_channels`` is where the constructor names it and ``text`` does not.
        outputs: Likewise ``out_channels``.

    Raises:
        ConfigError: It cannot be imported, or ``text`` is no JSON object.
    """
    arguments = read_arguments(text)
    value = imported(path)
    plain = isinstance(value, nn.Module) or not callable(value)  # the second is refused when made
    known = {} if plain else inspect.signature(value).parameters
    widths = {"in_channels": features, "out_channels": outputs}
    return {name: width for name, width in widths.items() if name in known} | arguments


def own_recipe(task: str) -> Recipe:
    """Training of a model of the user's own: that of GCN at the task's level."""
    return GRAPH if find_task(task).level.many_graphs else NODE


def imported(path: str) -> Any:
    """What ``MODULE:NAME`` names.

    Raises:
        ConfigError: There is nothing of that name.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"--model is {path!r}: it must be MODULE:NAME, as my_pkg.models:Net")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--model {path}: {error}") from error


def made(path: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The model of ``MODULE:NAME``.

    Raises:
        ConfigError: There is none of that name, it cannot be made, or it is no model.
    """
    value = imported(path)
    if isinstance(value, nn.Module):
        if arguments:
            raise ConfigError(f"--model {path} is a module that is made: it takes no arguments")
        return value
    try:
        found = value(**(arguments or {}))
    except TypeError as error:
        given = f"with {dict(arguments)}" if arguments else "without arguments"
        raise ConfigError(
            f"--model {path} cannot be made {given} ({error}): pass --model-args, or name a "
            "function that makes it"
        ) from error
    if not isinstance(found, nn.Module):
        raise ConfigError(f"--model {path} is a {type(found).__name__}: it must be a torch module")
    return found
