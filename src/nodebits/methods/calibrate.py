"""Calibration: a prepared model runs on graphs while its quantizers observe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from nodebits.core.context import opened
from nodebits.core.errors import ConfigError, NothingToQuantizeError
from nodebits.core.modes import evaluating
from nodebits.graph import graph_scope
from nodebits.nn.quantizers import Quantizer, calibration
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.plan.taking import remembering

_NEVER_GIVEN = frozenset({"y", "train_mask", "val_mask", "test_mask"})


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
    with evaluating(model), calibration(model), remembering(model):
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
        model: Its forward says what it takes, by name. Where the first two are no fields of the
            data they are its features and its adjacency.
        data: PyG's ``Data`` or ``HeteroData``.

    Returns:
        Arguments by position and by name.
    """
    parameters = inspect.signature(model.forward).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [p for p in parameters.values() if p.kind not in kinds]
    if len(known) == len(parameters) == 1:
        return (data,), {}
    fields = _fields(data)
    named = {p.name: fields[p.name] for p in known if p.name in fields}
    if named and all(p.name in named for p in known if p.default is p.empty):
        return (), named
    suffix = "_dict" if isinstance(data, HeteroData) else ""
    edges = fields.get(f"edge_index{suffix}", fields.get(f"adj_t{suffix}"))
    rest = {p.name for p in known[2:]} & named.keys()
    return (fields.get(f"x{suffix}"), edges), {name: named[name] for name in rest}


def _fields(data: Any) -> dict[str, Any]:
    """What a forward may name: fields but targets and masks; ``x_dict`` ... of several types."""
    if isinstance(data, HeteroData):
        names = {key for store in data.stores for key in store if key not in _NEVER_GIVEN}
        return {f"{name}_dict": data.collect(name) for name in names}
    found = {key: data[key] for key in data.keys() if key not in _NEVER_GIVEN}
    return {key: value for key, value in found.items() if value is not None}


def _of_data(model: nn.Module, data: Any) -> Callable[..., Any]:
    """The forward of a ``Data``."""
    args, found = data_arguments(model, data)
    call: Callable[..., Any] = partial(model, *args, **found)
    batch = None if isinstance(data, HeteroData) else data.get("batch")

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
