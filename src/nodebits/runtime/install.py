"""What a file says of a model's layers, put into a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import BatchNorm as PyGBatchNorm

from nodebits.core.errors import ConfigError
from nodebits.nn.conv import QuantConv
from nodebits.nn.evaluation import is_swapped, swap_evaluation
from nodebits.nn.layer import QuantLayer, stand_in
from nodebits.nn.norm import QuantBatchNorm, batch_norm_of
from nodebits.nn.prompt import AggregationPrompt
from nodebits.nn.references import References
from nodebits.nn.registry import general_layer_for, layer_by_name, layer_for
from nodebits.nn.swap import (
    avoid_fast_paths,
    obstacle,
    replace_children,
    replaced_method,
)


def fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Puts the file's tensors into ``module``.

    Raises:
        ConfigError: If they are not those of the module.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the module: {error}") from error


def install(module: nn.Module, header: dict[str, Any], path: str | Path) -> nn.Module:
    """Puts the file's layers in place of their float twins, children before parents.

    Raises:
        ConfigError: If a layer or norm does not fit the module.
    """
    layers = header["layers"]
    new_of: dict[nn.Module, nn.Module] = {}
    try:
        _add_prompts(module, layers)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: a prompt does not fit the module: {error}") from error
    for name in sorted(layers, key=lambda n: -n.count(".") if n else 1):
        entry = layers[name]
        try:
            twin = module.get_submodule(name)
            layer = _layer(twin, entry, twin in new_of.values())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: layer {name!r} ({entry.get('class')}) does not fit the module: {error}"
            ) from error
        new_of[twin] = layer
        replace_children(module, {twin: layer})
        module = layer if module is twin else module
    References(new_of).redirect(module)
    avoid_fast_paths(module)
    for name in header["norms"]:
        norm = batch_norm_of(module, name)[1]
        if norm is None:
            raise ConfigError(f"{path}: the module has no batch norm {name!r}, which the file has")
        swap_evaluation(norm)
        holder = module.get_submodule(name.rpartition(".")[0])
        if isinstance(holder, PyGBatchNorm):
            swap_evaluation(holder)
        if isinstance(norm, QuantBatchNorm):
            norm.freeze()
    for name in header.get("ordered") or ():
        _evaluate_in_order(module, name, path)
    return module


def _evaluate_in_order(module: nn.Module, name: str, path: str | Path) -> None:
    try:
        part = module.get_submodule(name)
    except AttributeError as error:
        raise ConfigError(f"{path}: the module has no {name!r}, which the file has") from error
    swap_evaluation(part)
    if not is_swapped(part) or isinstance(part, nn.BatchNorm1d):
        raise ConfigError(
            f"{path}: {name!r} is a {type(part).__name__} in the module, and none that is "
            "evaluated in a stated order, as in the file"
        )


def _layer(twin: nn.Module, entry: dict[str, Any], taken: bool) -> QuantLayer:
    """The layer of one entry, built for the module that it stands in for."""
    cls = layer_by_name(entry["class"])
    fitting = layer_for(twin) or type(twin)
    if not issubclass(fitting, cls):
        fitting = general_layer_for(twin) or fitting
    own = getattr(fitting, "quant_type", None)
    if own is not None and own is not cls and issubclass(cls, own):  # a more special one
        fitting = stand_in(cls, type(twin))
    if not issubclass(fitting, cls):
        raise ConfigError(
            f"it is a {type(twin).__name__} in the module, a {cls.layer_type} in the file"
        )
    if taken:
        raise ConfigError("the module has it under another name too, the file has two layers")
    reason = (
        None if isinstance(twin, QuantLayer) else replaced_method(twin) or obstacle(twin, fitting)
    )
    if reason is not None:
        raise ConfigError(reason)
    layer = fitting.build(entry["config"])
    layer.adopt(twin)
    layer.load_sites(entry["sites"])
    return layer


def _add_prompts(module: nn.Module, layers: dict[str, Any]) -> None:
    """Gives the float twins of convolutions with a prompt theirs, without weights."""
    for name, entry in layers.items():
        prompt = f"{name}.prompt".lstrip(".")
        parts: list[Any] = [layers.get(f"{prompt}.{part}") for part in ("score", "down")]
        if None in parts or not issubclass(layer_by_name(entry["class"]), QuantConv):
            continue
        twin = module.get_submodule(name)
        if "prompt" not in twin._modules:
            score, down = (part["config"] for part in parts)
            sizes = (score["in_channels"], score["out_channels"], down["out_channels"])
            twin.prompt = AggregationPrompt(*sizes, device="meta")
