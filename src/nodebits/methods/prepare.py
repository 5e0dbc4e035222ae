"""Swapping supported layers for layers with sites, and calibrating them."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData

from nodebits.core.errors import (
    ConfigError,
    NothingToQuantizeError,
    UnsupportedLayerWarning,
)
from nodebits.graph import graph_scope
from nodebits.methods.base import QuantConfig
from nodebits.nn.layer import QuantLayer, layer_for, supported_layers
from nodebits.nn.quantizers import calibration


def prepare(model: nn.Module, config: QuantConfig, *, inplace: bool = False) -> nn.Module:
    """Swaps every supported layer of ``model`` for its form with sites.

    Parameters keep their values: a trained model is a warm start. Layers with parameters that are
        not supported
    (norms, embeddings and the like) stay in float; convolutions among them are named in a warning.

    Args:
        model: Float model that contains PyG convolutions or linears.
        config: Method and widths.
        inplace: Change ``model`` itself instead of a copy.

    Returns:
        The prepared model, to be trained or calibrated, then converted.

    Raises:
        NothingToQuantizeError: If no supported layer was found.

    Example:
        >>> prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    """
    model = model if inplace else copy.deepcopy(model)
    swapped: list[str] = []
    root = _swap(model, "", config, swapped, {})
    if not swapped:
        raise NothingToQuantizeError(
            f"{type(model).__name__} has no layer that can be quantized. Supported: "
            f"{', '.join(supported_layers())}"
        )
    root.train(model.training)
    return root


def _swap(
    module: nn.Module,
    path: str,
    config: QuantConfig,
    swapped: list[str],
    done: dict[nn.Module, nn.Module],
) -> nn.Module:
    # named_children would give a module that two attributes share only once.
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        if child not in done:
            child_path = f"{path}.{name}" if path else name
            done[child] = _swap(child, child_path, config, swapped, done)
        if done[child] is not child:
            setattr(module, name, done[child])
    cls = layer_for(module)
    if cls is None:
        _warn_if_convolution(module, path)
        return module
    reason = cls.unsupported(module)
    if reason is not None:
        _warn(path, module, reason)
        return module
    layer = cls.from_float(module, path, config)
    layer.protection = config.protection()
    swapped.append(path)
    return layer


def _warn_if_convolution(module: nn.Module, path: str) -> None:
    from torch_geometric.nn import MessagePassing

    if isinstance(module, MessagePassing) and not isinstance(module, QuantLayer):
        _warn(path, module, "it has no quantized form (its linears, if any, are quantized)")


def _warn(path: str, module: nn.Module, reason: str) -> None:
    warnings.warn(
        f"layer {path or 'model'!r} ({type(module).__name__}) stays in float: {reason}. "
        f"Supported: {', '.join(supported_layers())}",
        UnsupportedLayerWarning,
        stacklevel=4,
    )


@torch.no_grad()
def calibrate(model: nn.Module, *inputs: Any, **keywords: Any) -> None:
    """Runs ``model`` in evaluation mode while its quantizers observe.

    Ranges are those of all graphs together, whatever their order, and whether they come in one call
    or in several. A range that was trained is widened where it does not fit.

    Args:
        model: A prepared model.
        *inputs: What the model takes, ``x, edge_index`` as a rule. Or one list, loader or other
            iterable of several: tuples of what the model takes, dictionaries of it by name, or
            PyG's ``Data``.
        **keywords: What the model takes by name, the same for every graph.

    Raises:
        ConfigError: If a list of graphs is empty, or holds something else.

    Example:
        >>> nodebits.calibrate(prepared, [(x, edge_index), (other_x, other_edge_index)])
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with calibration(model):
            for call in _calls(model, inputs):
                call(**keywords)
    finally:
        for module, training in modes.items():
            module.training = training


def _calls(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[Callable[..., Any]]:
    """One forward per graph, lacking the keywords."""
    if len(inputs) != 1 or not _is_many(inputs[0]):
        graph = inputs[0] if len(inputs) == 1 else None
        yield _of_data(model, graph) if isinstance(graph, BaseData) else partial(model, *inputs)
        return
    number = -1
    for number, item in enumerate(inputs[0]):
        if isinstance(item, BaseData):
            yield _of_data(model, item)
        elif isinstance(item, Mapping):
            yield partial(model, **item)
        elif isinstance(item, tuple | list):
            yield partial(model, *item)
        else:
            raise ConfigError(
                f"graph {number} to calibrate on is a {type(item).__name__}: give a tuple "
                "(x, edge_index), a dictionary of the model's arguments, or a Data object"
            )
    if number < 0:
        raise ConfigError("there is no graph to calibrate on: the list is empty")


def _is_many(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(v, tuple | list | BaseData) for v in value)
    return isinstance(value, Iterable) and not isinstance(value, Tensor | Mapping | BaseData)


def _of_data(model: nn.Module, data: Any) -> Callable[..., Any]:
    """The forward of a ``Data``: whole where the model takes one argument, by name otherwise."""
    names = list(inspect.signature(model.forward).parameters)
    if len(names) == 1:
        call: Callable[..., Any] = partial(model, data)
    else:
        optional = [n for n in ("edge_weight", "edge_attr", "batch") if n in names]
        found = {n: data[n] for n in optional if data.get(n) is not None}
        call = partial(model, data.x, data.edge_index, **found)
    batch = data.get("batch")

    def run(**keywords: Any) -> Any:
        with graph_scope(batch=batch):
            return call(**keywords)

    return run
