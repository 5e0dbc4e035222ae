"""Calibration: a prepared model runs on graphs while its quantizers observe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData

from nodebits.core.context import opened
from nodebits.core.errors import ConfigError, NothingToQuantizeError
from nodebits.core.modes import evaluating
from nodebits.graph import graph_scope
from nodebits.nn.quantizers import Quantizer, calibration
from nodebits.nn.quantizers.weight import WeightQuantizer


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
        NothingToQuantizeError: If the model has nothing to calibrate: it is float, or packed.
        ConfigError: If a list of graphs is empty, or holds something else.

    Example:
        >>> nodebits.calibrate(prepared, [(x, edge_index), (other_x, other_edge_index)])
    """
    if not any(isinstance(module, Quantizer | WeightQuantizer) for module in model.modules()):
        raise NothingToQuantizeError(
            f"{type(model).__name__} has no ranges to calibrate: calibrate what nodebits.prepare("
            "model, config) returned, before it is converted"
        )
    with evaluating(model), calibration(model):
        for call, held in _calls(model, inputs):
            given = frozenset(t.data_ptr() for t in _tensors((held, keywords)))
            with opened(given=given):
                call(**keywords)


def _calls(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[tuple[Callable[..., Any], Any]]:
    """One forward per graph, lacking the keywords, and what it is given."""
    if len(inputs) != 1 or not _is_many(inputs[0]):
        graph = inputs[0] if len(inputs) == 1 else None
        whole = isinstance(graph, BaseData)
        yield (_of_data(model, graph) if whole else partial(model, *inputs)), inputs
        return
    number = -1
    for number, item in enumerate(inputs[0]):
        if isinstance(item, BaseData):
            yield _of_data(model, item), item
        elif isinstance(item, Mapping):
            yield partial(model, **item), item
        elif isinstance(item, tuple | list):
            yield partial(model, *item), item
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


def data_arguments(model: nn.Module, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What ``model`` is called with for a ``Data``: it as a whole where there is one argument.

    Args:
        model: Its forward says what it takes, by name.
        data: PyG's ``Data``.

    Returns:
        Arguments by position and by name.
    """
    parameters = inspect.signature(model.forward).parameters
    names = [n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(names) == len(parameters) == 1:
        return (data,), {}
    optional = [n for n in ("edge_weight", "edge_attr", "batch") if n in names]
    found: dict[str, Any] = {n: data[n] for n in optional if data.get(n) is not None}
    return (data.x, data.edge_index), found


def _of_data(model: nn.Module, data: Any) -> Callable[..., Any]:
    """The forward of a ``Data``."""
    args, found = data_arguments(model, data)
    call: Callable[..., Any] = partial(model, *args, **found)
    batch = data.get("batch")

    def run(**keywords: Any) -> Any:
        with graph_scope(batch=batch):
            return call(**keywords)

    return run


def _tensors(value: Any) -> Iterator[Tensor]:
    """The dense tensors in arguments and the containers that PyG's models take."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, BaseData):
        for store in value.stores:
            yield from _tensors(dict(store))
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
