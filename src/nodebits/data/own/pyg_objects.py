"""PyG's objects in a ``.pt`` file as data sets; loading runs nothing that the file holds."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data import Dataset as PygDataset
from torch_geometric.data.data import BaseData, DataEdgeAttr, DataTensorAttr
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from nodebits.core.errors import ConfigError, FileFormatError, LabelError, ShapeError
from nodebits.data.base import Dataset, graph_dataset, node_dataset, pair_dataset
from nodebits.data.own.build import OWN, loops_and_doubles
from nodebits.data.own.divide import Given, divided
from nodebits.data.own.options import SPLITS, split_rule
from nodebits.data.pairs import edge_parts, link_parts
from nodebits.data.sources.base import Request
from nodebits.tasks import EDGE, GRAPH, NODE, Level, find_task, suggested_task

# Of PyG's objects, beside what PyG declares to be safe itself.
_PLAIN = (
    DataEdgeAttr,
    DataTensorAttr,
    BaseStorage,
    GlobalStorage,
    NodeStorage,
    EdgeStorage,
    set,
)


def read_pt(path: Path) -> Any:
    """What a file holds: a ``Data``, a ``HeteroData``, or a list of ``Data``.

    Raises:
        FileFormatError: It holds something else, or what torch does not load as plain data.
    """
    try:
        with torch.serialization.safe_globals(list(_PLAIN)):
            value = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise FileFormatError(
            f"{path} is no graph written by torch.save, or holds more than PyG's objects, tensors "
            f"and plain values ({_reason(error)}). Of a batch or a data set of your own save the "
            "list of its Data: torch.save(list(data_set), PATH)"
        ) from error
    if _saved_set(value):
        return _separated(path, value)
    if isinstance(value, list | tuple) and value and all(isinstance(g, Data) for g in value):
        return list(value)
    if isinstance(value, BaseData):
        return value
    found = type(value).__name__
    if isinstance(value, list | tuple):
        found += f" of {', '.join(sorted({type(v).__name__ for v in value})) or 'nothing'}"
    raise FileFormatError(
        f"{path} holds a {found}: it must be a PyG Data, a HeteroData, or a list of Data"
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = text.partition("Unsupported global: GLOBAL ")[2].partition(" ")[0]
    return f"it names {found}" if found else type(error).__name__


def _saved_set(value: Any) -> bool:
    """Whether it is what ``InMemoryDataset.save`` writes."""
    return (
        isinstance(value, tuple)
        and len(value) in (2, 3)
        and isinstance(value[0], dict | Data)
        and (value[1] is None or isinstance(value[1], dict))
    )


def _separated(path: Path, value: tuple[Any, ...]) -> Any:
    whole, slices = value[0], value[1]
    data = Data.from_dict(whole) if isinstance(whole, dict) else whole
    if slices is None:
        return data
    counts = {len(v) - 1 for v in slices.values() if hasattr(v, "__len__")}
    if len(counts) != 1:
        raise FileFormatError(f"{path}: the slices of its fields have {sorted(counts)} graphs")
    (count,) = counts
    graphs = [separate(Data, data, n, slices, decrement=False) for n in range(count)]
    return graphs[0] if count == 1 else graphs


def pyg_dataset(path: Path, value: Any, request: Request) -> Dataset:
    """The record of a ``Data``, ``HeteroData``, or list or data set of ``Data``.

    Args:
        path: Where it was read, for messages; the last part is the set's name.
        value: The object.
        request: Of the user.

    Raises:
        LabelError: Targets are not what the task takes.
        ConfigError: A split, field or task does not fit.
        FileFormatError: Masks are not three, or have another length.
    """
    if request.use_node_attr:
        raise ConfigError(f"use_node_attr is for the sets of the TU collection, not {path.name}")
    if isinstance(value, HeteroData):
        return _hetero(path, value, request)
    if isinstance(value, list | PygDataset):
        graphs = [_chosen(path, graph, request) for graph in value]
        found = _many(path, graphs, request)
    else:
        graphs = [_chosen(path, value, request)]
        found = _one(path, graphs[0], request)
    notes = (loops_and_doubles(graphs), found.notes)
    return replace(found, notes=" ".join(note for note in notes if note))


def _chosen(path: Path, data: Data, request: Request) -> Data:
    """The graph with its target as ``y``, and without fields that are left out."""
    data = data.clone() if request.own.target or request.own.ignore else data
    if request.own.target:
        (name, *more) = request.own.target
        if more or name not in data:
            raise ConfigError(f"{path} has no field {name!r}; it has {', '.join(data.keys())}")
        if name != "edge_label":
            data.y = data[name]
            if name != "y":
                del data[name]
    for name in request.own.ignore:
        if name in data:
            del data[name]
    if data.x is None:
        raise ShapeError(f"{path}: x is missing: it must be a float tensor [nodes, features]")
    return data


def _one(path: Path, data: Data, request: Request) -> Dataset:
    kind = None if request.task is None else find_task(request.task)
    level = kind.level if kind is not None else EDGE if "edge_label" in data else NODE
    known_as = path.resolve().name
    if level == GRAPH:
        raise ConfigError(f"task {request.task!r} is of graphs, and {path} is one graph")
    if request.own.asks:
        if level.pairs:
            return pair_dataset(known_as, data, None, "", OWN, request.task or level.unit)
        return _asked(known_as, data, request, level, int(data.x.size(1)))
    rule = split_rule(request.split, request.seed_given)
    given = _given(data)
    if level.absent:
        task = find_task(request.task or "link")
        notes = f"Links hidden with seed {rule.seed}: 10 % to validate, 20 % to test."
        parts = link_parts(data, task, rule.seed)
        return pair_dataset(known_as, data, parts, notes, OWN, task.name)
    if level.pairs:
        label = data.edge_label if "edge_label" in data else data.y
        if label is None:
            raise LabelError(f"{path}: edge_label is missing: a row per edge")
        task = find_task(request.task or suggested_task(label, level, str(path)))
        pairs = data.edge_label_index if "edge_label_index" in data else data.edge_index
        targets = task.targets(label, int(pairs.size(1)), str(path))
        masks, notes = divided(path, given, targets, task, rule)
        data = data.clone()
        data.edge_label = targets
        for split, mask in zip(SPLITS, masks, strict=True):
            data[f"{split}_mask"] = mask
        return pair_dataset(known_as, data, edge_parts(data), notes, OWN, task.name)
    if data.y is None:
        raise LabelError(f"{path}: y is missing: name the field to predict (target)")
    task = find_task(request.task or suggested_task(data.y, level, str(path)))
    targets = task.targets(data.y, int(data.x.size(0)), str(path))
    masks, notes = divided(path, given, targets, task, rule)
    data = data.clone()
    data.x = data.x.float() if data.x.is_floating_point() else data.x
    return node_dataset(known_as, data, masks, notes, OWN, task.name)


def _many(path: Path, graphs: list[Data], request: Request) -> Dataset:
    first = graphs[0]
    kind = None if request.task is None else find_task(request.task)
    level = kind.level if kind is not None else GRAPH
    if kind is None and isinstance(first.y, Tensor) and first.y.dim():
        of_nodes = all(
            isinstance(g.y, Tensor) and g.y.dim() and g.y.size(0) == g.num_nodes for g in graphs
        )
        level = NODE if of_nodes and any(g.num_nodes != 1 for g in graphs) else GRAPH
    if level.pairs:
        raise ConfigError(f"task {request.task!r} is of pairs of one graph, and {path} is many")
    known_as = path.resolve().name
    if request.own.asks:
        return _asked(known_as, graphs, request, level, int(first.x.size(1)))
    rule = split_rule(request.split, request.seed_given)
    if any(graph.y is None for graph in graphs):
        number = next(n for n, graph in enumerate(graphs) if graph.y is None)
        raise LabelError(f"{path}: graph {number}: y is missing")
    if level == NODE:
        whole = torch.cat([torch.as_tensor(graph.y, device="cpu") for graph in graphs])
        task = find_task(request.task or suggested_task(whole, NODE, str(path)))
        for number, graph in enumerate(graphs):
            task.targets(graph.y, int(graph.x.size(0)), f"{path}: graph {number}")
        # Whole graphs are divided: what their targets are does not matter.
        numbers = torch.zeros(len(graphs), 1, device="cpu")
        shares = rule if rule.kind in ("ratio", "masks") else split_rule("0.6/0.2/0.2", rule.seed)
        masks, notes = divided(path, Given(), numbers, find_task("graph-regression"), shares)
    else:
        values = [torch.as_tensor(graph.y, device="cpu").reshape(1, -1) for graph in graphs]
        widths = {value.size(1) for value in values}
        if len(widths) > 1:
            raise LabelError(f"{path}: y has {', '.join(map(str, sorted(widths)))} numbers a graph")
        whole = torch.cat(values)
        shown = whole[:, 0] if whole.size(1) == 1 else whole
        task = find_task(request.task or suggested_task(shown, GRAPH, str(path)))
        targets = task.targets(shown, len(graphs), str(path))
        masks, notes = divided(path, _marks(graphs), targets, task, rule)
        graphs = [graph.clone() for graph in graphs]
        for number, graph in enumerate(graphs):
            graph.y = targets[number : number + 1]
    train, val, test = (mask.nonzero().flatten() for mask in masks)
    return graph_dataset(known_as, graphs, (train, val, test), notes, OWN, task.name)


def _hetero(path: Path, data: HeteroData, request: Request) -> Dataset:
    types = [kind for kind in data.node_types if "y" in data[kind]]
    if len(types) != 1:
        raise ConfigError(
            f"{path}: of its types of nodes ({', '.join(data.node_types)}) {len(types)} have y: "
            "one is predicted"
        )
    store, level = data[types[0]], NODE
    rule = split_rule(request.split, request.seed_given)
    empty = torch.zeros(0, dtype=torch.int64, device="cpu")
    known_as = path.resolve().name
    if request.own.asks:
        name = request.task or "node"
        return Dataset(known_as, name, 0, 0, empty, empty, empty, "", OWN, data)
    task = find_task(request.task or suggested_task(store.y, level, str(path)))
    targets = task.targets(store.y, int(store.num_nodes), str(path))
    masks, notes = divided(path, _given(store), targets, task, rule)
    data = data.clone()
    for split, mask in zip(SPLITS, masks, strict=True):
        data[types[0]][f"{split}_mask"] = mask
    train, val, test = (mask.nonzero().flatten() for mask in masks)
    return Dataset(
        known_as, task.name, 0, task.outputs(targets), train, val, test, notes, OWN, data
    )


def _asked(name: str, content: Any, request: Request, level: Level, width: int) -> Dataset:
    empty = torch.zeros(0, dtype=torch.int64, device="cpu")
    return Dataset(
        name, request.task or level.unit, width, 0, empty, empty, empty, "", OWN, content
    )


def _given(store: Any) -> Given:
    return Given({s: store[f"{s}_mask"] for s in SPLITS if f"{s}_mask" in store})


def _marks(graphs: Sequence[Data]) -> Given:
    """Masks of graphs that say themselves what split they are in, as ``split`` 0, 1 or 2."""
    if not all("split" in graph for graph in graphs):
        return Given()
    return Given(split=torch.tensor([int(graph["split"]) for graph in graphs], device="cpu"))
