"""The arguments of a packed model: which of them are features, and what becomes of those.

Features are the float matrices ``[N, C]`` among the arguments, also in the containers that PyG's
models take: a pair of a bipartite layer, a list, a dictionary by node type, a ``Data`` object. They
wait to be packed by the site that reads them (:class:`nodebits.engine.pending.PendingRows`). What
belongs to edges (a name that begins with ``edge``), integer tensors such as the ids of an
embedding, and everything else is passed on untouched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

from nodebits.core.errors import ShapeError
from nodebits.core.observer import check_finite
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph
from nodebits.graph.adjacency import as_edges
from nodebits.graph.loops import EDGE_INDEX
from nodebits.nn.inputs import check_holder

Change = Callable[[Tensor], Any]


def with_features(
    names: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any], change: Change
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with ``change`` of every feature matrix.

    Args:
        names: Names of the positional arguments, as far as they have one.
        args: Positional arguments.
        keywords: Others.
        change: What becomes of a float32 ``[N, C]``; called once for every tensor.

    Raises:
        ShapeError: If the first argument, or one called ``x``, is a NumPy array, sparse, or of
            fewer dimensions than features have.
        NonFiniteError: If such an argument of more dimensions holds NaN or infinity.
    """
    known: dict[int, Any] = {}

    def once(value: Tensor) -> Any:
        """The same for a tensor that is given twice: layers ask whether two are one."""
        if id(value) not in known:
            # The cast comes before the check that all is finite: a finite float64 may be infinite.
            known[id(value)] = change(value.float().contiguous())
        return known[id(value)]

    changed = []
    for i, value in enumerate(args):
        name = names[i] if i < len(names) else ("x" if i == 0 else "edge")
        changed.append(_changed(name, value, once, i == 0 or name == "x"))
    return changed, {
        name: _changed(name, value, once, name == "x") for name, value in keywords.items()
    }


def _changed(name: str, value: Any, change: Change, main: bool) -> Any:
    """``value`` with its features changed; ``main`` if it must be features where it is floats."""
    if name.startswith("edge") or value is None or isinstance(value, PackedInput):
        return value
    if isinstance(value, Tensor):
        return _changed_tensor(name, value, change, main)
    if isinstance(value, BaseData):
        return _changed_data(value, change)
    if isinstance(value, dict):
        return {key: _changed(name, part, change, main) for key, part in value.items()}
    if main and (isinstance(value, np.ndarray) or _holds_no_tensors(value)):
        raise ShapeError(
            f"features are a {type(value).__name__} (argument {name!r}): expected a float tensor "
            "[num_nodes, channels], such as torch.as_tensor makes"
        )
    if type(value) in (list, tuple):
        return type(value)([_changed(name, part, change, main) for part in value])
    return value


def with_edges(
    args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments with the edges of prepared graphs as tensors; None where there is no graph.

    A graph of other nodes than anything beside it stays what it is: layers say what is wrong.
    """
    if not any(type(value) is Graph for value in (*args, *keywords.values())):
        return None
    rows = {v.shape[0] for v in (*args, *keywords.values()) if _has_rows(v)}

    def edges(value: Any) -> Any:
        plain = type(value) is Graph and value.form == EDGE_INDEX and value.edge_weight is None
        return as_edges(value) if plain and {value.num_src, value.num_dst} <= rows else value

    return [edges(v) for v in args], {name: edges(v) for name, v in keywords.items()}


def _has_rows(value: Any) -> bool:
    return isinstance(value, PackedInput) or (isinstance(value, Tensor) and value.dim() > 0)


def _holds_no_tensors(value: Any) -> bool:
    while type(value) in (list, tuple) and value:
        value = value[0]
    return isinstance(value, int | float | str | np.ndarray | np.generic)


def _changed_tensor(name: str, value: Tensor, change: Change, main: bool) -> Any:
    if main:
        check_holder(value, f"argument {name!r}")
    if value.layout != torch.strided:
        if main and value.is_floating_point():
            raise ShapeError(
                f"argument {name!r} is a sparse matrix of features ({value.layout}): pass "
                "x.to_dense(); the packed model keeps sparse rows by itself"
            )
        return value
    if not value.is_floating_point():
        return value
    if value.dim() == 2:
        return change(value)
    if main and value.dim() < 2:
        raise ShapeError(
            f"features are {value.dtype} {list(value.shape)} (argument {name!r}): expected a float "
            "tensor [num_nodes, channels]"
        )
    if main:
        value = value.float()
        check_finite(value.flatten(0, -2), f"argument {name!r}, its first dimensions joined,")
    return value


def _changed_data(data: BaseData, change: Change) -> BaseData:
    """A shallow copy with the ``x`` of every node type changed."""
    result = copy.copy(data)
    for store in result.stores:
        for key in list(store.keys()):
            if key == "x" or key.startswith("x_"):
                store[key] = _changed(key, store[key], change, key == "x")
    return result


def packed_features(args: Sequence[Any], keywords: Mapping[str, Any]) -> list[PackedInput]:
    """The features packed ahead among the arguments."""
    return [*_packed_in([*args, keywords])]


def _packed_in(value: Any) -> Iterator[PackedInput]:
    if isinstance(value, PackedInput):
        yield value
    elif isinstance(value, dict):
        yield from _packed_in([*value.values()])
    elif type(value) in (list, tuple):
        for part in value:
            yield from _packed_in(part)
