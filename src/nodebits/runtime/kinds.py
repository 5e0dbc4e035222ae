"""Kinds of calls: what two calls must have in common to be run by one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from nodebits.core.errors import NodebitsError
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.plan.adjacency import Given, as_given, is_sparse, kind_of_graph
from nodebits.plan.containers import ALL
from nodebits.plan.example import Example
from nodebits.plan.packed_rows import kind_of_rows, tensors_of

_NONE = object()  # in the kind of a call: an argument of no plan
MATRIX = object()  # a sparse matrix, which becomes a graph first


# What is read of PyG's data, whose types it is known by: places without that of the data itself.
Reads = Mapping[Any, tuple[tuple[Any, ...], ...]]
_NO_READS: Reads = {}


def kind_of(
    args: Sequence[Any], keywords: Mapping[str, Any], reads: Reads = _NO_READS, device: str = "cpu"
) -> Any:
    """What two calls must have in common to be run by one plan; None for arguments of no plan.

    Args:
        args: By position.
        keywords: By name.
        reads: What forwards read of ``Data`` with such types; of others the types alone count.
        device: Type of the device that all tensors are on.
    """
    parts: list[Any] = []
    for value in (*args, *keywords.values()):
        # Written out: this is asked in every call.
        if type(value) is Tensor and value.layout is torch.strided and value.device.type == device:
            rank = value.dim()
            wide = rank == 2 and value.is_floating_point()
            parts.append((value.dtype, rank, value.size(1) if wide else None))
        elif (
            type(value) is Graph
            and value.form == EDGE_INDEX
            and value.edge_weight is None
            and value.indices.device.type == device
        ):
            parts.append(Graph)
        elif type(value) is dict:
            parts.append(_kind_of_dict(value, device))
        elif type(value) is HeteroData or type(value) is Data:
            parts.append(_kind_of_data(value, reads, device))
        else:
            parts.append(_kind(value, device))
    if MATRIX in parts:
        return MATRIX
    return None if _NONE in parts else (*parts, *keywords)


def _kind_of_dict(held: dict[Any, Any], device: str) -> Any:
    parts: list[Any] = [dict]
    for key, value in held.items():
        parts.append(key)
        if type(value) is Tensor and value.layout is torch.strided and value.device.type == device:
            rank = value.dim()
            wide = rank == 2 and value.is_floating_point()
            parts.append((value.dtype, rank, value.size(1) if wide else None))
        elif (
            type(value) is Graph
            and value.form == EDGE_INDEX
            and value.edge_weight is None
            and value.indices.device.type == device
        ):
            parts.append(Graph)
        else:
            parts.append(_kind(value, device))
    if MATRIX in parts:
        return MATRIX
    return _NONE if _NONE in parts else tuple(parts)


def types_of(data: Any) -> Any:
    """What data with the same reads have in common: their types."""
    return (Data,) if type(data) is Data else (HeteroData, *data.node_types, None, *data.edge_types)


def _kind_of_data(data: Any, reads: Reads, device: str) -> Any:
    types = types_of(data)
    read = reads.get(types)
    if read is None:
        return types
    held: dict[Any, Any] = {}
    others: list[Any] = []
    for place in read:
        key = place[-1]
        store = data.stores[0] if len(place) == 1 else data[place[0]]
        if key == ALL:
            others.append((place, *store.keys()))
        elif key in store:
            held[place] = store[key]
        else:
            others.append(place)
    kind = _kind_of_dict(held, device)
    return _NONE if kind is _NONE or kind is MATRIX else (types, kind, *others)


def with_reads(reads: Reads, example: Example, args: Sequence[Any], keywords: Any) -> Reads:
    """What is read of data, and what the forward of an example reads of its own.

    Args:
        reads: What is known.
        example: Of a plan.
        args: What it stands for, by position.
        keywords: Likewise, by name.
    """
    found = dict(reads)
    for top, container in example.containers.items():
        if container.kind is not dict:
            own = {
                place[1:] for place in example.reads if isinstance(place, tuple) and place[0] == top
            }
            types = types_of(args[top] if isinstance(top, int) else keywords[top])
            found[types] = tuple(sorted(own | set(found.get(types, ())), key=repr))
    return found


def with_graphs(
    args: Sequence[Any], keywords: Mapping[str, Any], device: str = "cpu"
) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """Arguments without sparse matrices; None where one is no adjacency."""
    if kind_of(args, keywords, _NO_READS, device) is not MATRIX:
        return args, keywords
    try:
        args, keywords = as_given(args, keywords)
    except NodebitsError:
        return None
    left = kind_of(args, keywords, _NO_READS, device)
    return None if left is MATRIX else (args, keywords)


def kinds_like(example: Example, reads: Reads) -> list[Any]:
    """The kinds of calls that an example stands for: edges may come as prepared graphs."""
    args, keywords = as_given(*example.call(example.parts))
    found = [kind_of(args, keywords, reads)]
    edges = {a.place for a in example.arguments if a.role == "edges"}
    made = example.call(
        {**example.parts, **{a.name: Graph for a in example.arguments if a.place in edges}}
    )
    prepared = as_given(*made)
    if any(one.kind is not dict for one in example.containers.values()):
        return found
    return [*found, kind_of(*prepared, reads)]


def _kind(value: Any, device: str = "cpu") -> Any:
    kind = type(value)
    if kind is PackedInput:
        here = device == "cpu" and all(t.is_cpu for t in tensors_of("", value).values())
        alone = value.graph is not None or value.is_apart
        return kind_of_rows(value) if here and not alone else _NONE
    if value is Graph:  # what stands for any
        return Graph
    if kind is Given:
        return value.kind if value.graph.device.type == device else _NONE
    if kind is Graph:
        return kind_of_graph(value) if value.device.type == device else _NONE
    if is_sparse(value):
        return MATRIX
    if value is None or kind in (bool, int, float, str):
        return kind, value
    return _NONE


def traced_kind(args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """The kind of a call whose tensors have types and sizes alone."""

    def part(value: Any) -> Any:
        if type(value) is dict:
            return (dict, *[one for key in value for one in (key, part(value[key]))])
        if not isinstance(value, Tensor):
            return _kind(value)
        wide = value.dim() == 2 and value.is_floating_point()
        return value.dtype, value.dim(), value.size(1) if wide else None

    return (*[part(value) for value in (*args, *keywords.values())], *keywords)


def shown_kind(names: Sequence[str], kind: Any) -> dict[str, str]:
    """What the arguments of a kind are, by name.

    Args:
        names: Of the positional arguments.
        kind: The kind.
    """
    by_name = [part for part in kind if isinstance(part, str)]
    parts = kind[: len(kind) - len(by_name)]
    first = len(parts) - len(by_name)
    all_names = [names[i] if i < len(names) else f"argument {i}" for i in range(first)] + by_name
    return {name: _shown(part) for name, part in zip(all_names, parts, strict=True)}


def _shown(part: Any) -> str:
    if isinstance(part, tuple) and len(part) == 3 and isinstance(part[0], torch.dtype):
        width = "" if part[2] is None else f", {part[2]} columns"
        return f"a tensor of {part[0]} with {part[1]} axes{width}"
    if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], type):
        return repr(part[1])
    if isinstance(part, tuple) and part and part[0] is dict:
        return f"a dictionary of {', '.join(map(repr, part[1::2]))}"
    return "a graph" if part is Graph else f"a {type(part).__name__}"


def difference(names: Sequence[str], known: Any, kind: Any) -> str:
    """In words, the first argument that two kinds of calls have not in common."""
    mine, theirs = shown_kind(names, known), shown_kind(names, kind)
    for name in (*theirs, *mine):
        if mine.get(name) != theirs.get(name):
            before = f"as {mine[name]}" if name in mine else "left out"
            now = f"given as {theirs[name]}" if name in theirs else "left out"
            return f"it was made with {name!r} {before}, which is {now} here"
    return "it was made with the arguments by other positions or names"
