"""Arrays of the user's own as a data set: of nodes, graphs, edges or links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from nodebits.core.errors import ConfigError, FileFormatError, LabelError
from nodebits.data.base import Dataset, graph_dataset, node_dataset, pair_dataset
from nodebits.data.features import normalize_rows
from nodebits.data.own.divide import Given, divided
from nodebits.data.own.options import SPLITS, split_rule
from nodebits.data.sources.base import Request
from nodebits.tasks import EDGE, GRAPH, LINK, NODE, Level, Task, find_task, suggested_task

OWN = "the user's own"
_SHAPES = {
    "x": ("biuf", 2, "numbers [N, F]"),
    "edge_index": ("iu", 2, "node numbers [2, E]"),
    "edge_label_index": ("iu", 2, "node numbers [2, P]"),
    "batch": ("iu", 1, "the number of a graph per row of x"),
}


class _Read(NamedTuple):
    """What was read, as :func:`build` is given it, and what its rows are."""

    path: Path
    parts: dict[str, Any]
    request: Request
    level: Level


def build(path: Path, parts: dict[str, Any], request: Request) -> Dataset:
    """Builds the record of one graph, or of many.

    Args:
        path: Where it was read, for messages; the last part is the set's name.
        parts: ``x`` ``[N, F]``, ``edge_index`` ``[2, E]``, ``batch`` ``[N]`` where there are many
            graphs; ``y`` ``[rows, ...]``, a row per node, graph, or edge (then also
            ``edge_label``); masks ``[rows]`` or ``[rows, splits]``, or ``split`` ``[rows]`` of 0,
            1, 2, or -1; ``time`` ``[rows]``; ``edge_weight`` ``[E]`` and ``edge_attr`` ``[E, A]``;
            ``edge_label_index`` ``[2, P]`` where pairs are not the edges; ``ids``; ``about``.
        request: Of the user; its task, or else the one that ``y`` looks like.

    Raises:
        FileFormatError: A part is missing, has another shape or type, or names no node or graph.
        LabelError: Targets are not what the task takes.
        ConfigError: ``split``, ``use_node_attr`` or the task does not fit.
        NonFiniteError: A feature is NaN or infinite.
    """
    if request.use_node_attr:
        raise ConfigError(f"use_node_attr is for the sets of the TU collection, not {path.name}")
    _check(path, parts)
    level = _level(path, parts, request)
    read = _Read(path, parts, request, level)
    x = torch.from_numpy(parts["x"].astype("float32"))
    notes = [parts["notes"]] if parts.get("notes") else []
    if request.normalize_features:
        normalize_rows(x)
        notes.append("Features: rows divided by their sum.")
    data = Data(x=x, edge_index=torch.from_numpy(parts["edge_index"].astype("int64")))
    for name in ("edge_weight", "edge_attr"):
        if parts.get(name) is not None:
            data[name] = torch.from_numpy(parts[name].astype("float32"))
    if parts.get("edge_label_index") is not None:
        data.edge_label_index = torch.from_numpy(parts["edge_label_index"].astype("int64"))
    notes.append(loops_and_doubles([data]))
    if level.pairs:
        found = _of_pairs(read, data)
    else:
        found = _of_rows(read, data)
    return replace(
        found,
        features_normalized=bool(request.normalize_features),
        notes=" ".join(part for part in (*notes, found.notes) if part),
        ids=parts.get("ids"),
        about={**found.about, **(parts.get("about") or {})},
    )


def _level(path: Path, parts: dict[str, Any], request: Request) -> Level:
    """What rows are: as the task says, else as targets do."""
    many = "batch" in parts
    asked = None if request.task is None else find_task(request.task).level
    if asked is not None:
        fits = asked == GRAPH or asked == NODE if many else asked != GRAPH
        if not fits:
            lacks = "has batch: many graphs" if many else "lacks batch, the graph of each node"
            raise ConfigError(f"task {request.task!r} is of {asked.unit}s, and {path} {lacks}")
        return asked
    if parts.get("edge_label") is not None:
        return EDGE
    y = parts.get("y")
    if many:
        return NODE if y is not None and len(y) == len(parts["x"]) else GRAPH
    return NODE


def _of_rows(read: _Read, data: Data) -> Dataset:
    path, parts, request, level = read
    many = "batch" in parts
    x = data.x
    graphs = int(parts["batch"].max(initial=-1)) + 1 if many else 1
    rows = graphs if level == GRAPH else int(x.size(0))
    batch = torch.from_numpy(parts["batch"].astype("int64")) if many else None
    if request.own.asks:
        empty = torch.zeros(0, dtype=torch.int64, device="cpu")
        name = request.task or level.unit
        content: Any = data if batch is None else _graphs(path, data, batch, graphs, None, level)
        return Dataset(
            path.resolve().name, name, int(x.size(1)), 0, empty, empty, empty, "", OWN, content
        )
    task, targets, about = _targets(read, "y", rows)
    rule = split_rule(request.split, request.seed_given)
    masks, notes = divided(path, _given(parts), targets, task, rule)
    known_as = path.resolve().name
    if batch is None:
        data.y = targets
        found = node_dataset(known_as, data, masks, notes, OWN, task.name)
    else:
        each = _graphs(path, data, batch, graphs, targets, level)
        if level == NODE:
            masks = _of_graphs(path, masks, batch, graphs)
        train, val, test = (mask.nonzero().flatten() for mask in masks)
        found = graph_dataset(known_as, each, (train, val, test), notes, OWN, task.name)
    return replace(found, about=about)


def _of_pairs(read: _Read, data: Data) -> Dataset:
    from nodebits.data.pairs import edge_parts, link_parts

    path, parts, request, level = read
    pairs = data.edge_label_index if "edge_label_index" in data else data.edge_index
    count = int(pairs.size(1))
    known_as = path.resolve().name
    if request.own.asks:
        return pair_dataset(known_as, data, None, "", OWN, request.task or level.unit)
    rule = split_rule(request.split, request.seed_given)
    name = "edge_label" if parts.get("edge_label") is not None else "y"
    about: dict[str, Any] = {}
    if level == LINK:
        task = find_task(request.task or "link")
        if parts.get("edge_label") is not None:
            task, targets, about = _targets(read, "edge_label", count)
            data.edge_label = targets
        given = _given(parts)
        masks = None
        notes = f"Links hidden with seed {rule.seed}: 10 % to validate, 20 % to test."
        if given.split is not None or given.masks or rule.kind in ("ratio", "time", "column"):
            ones = torch.ones(count, 1, device="cpu")
            masks, notes = divided(path, given, ones, find_task("link"), rule)
        parted = link_parts(data, task, rule.seed, masks)
    else:
        if parts.get(name) is None:
            raise FileFormatError(
                f"{path} has no targets of edges: edge_label, a row per edge; it has "
                f"{', '.join(parts)}"
            )
        task, targets, about = _targets(read, name, count)
        masks, notes = divided(path, _given(parts), targets, task, rule)
        data.edge_label = targets
        for split, mask in zip(SPLITS, masks, strict=True):
            data[f"{split}_mask"] = mask
        parted = edge_parts(data)
    return replace(pair_dataset(known_as, data, parted, notes, OWN, task.name), about=about)


def _targets(read: _Read, part: str, rows: int) -> tuple[Task, Tensor, dict[str, Any]]:
    """The task, its targets, and the labels that stand for classes."""
    path, parts, request, level = read
    y = parts.get(part)
    if y is None:
        raise FileFormatError(f"{path} lacks {part}; it has {', '.join(parts)}")
    about: dict[str, Any] = {}
    if y.dtype.kind in "US" and y.ndim:
        if y.dtype.kind == "S":
            y = np.char.decode(y, "utf-8")
        labels, y = np.unique(y, return_inverse=True)
        about["classes"] = labels.tolist()
    if y.dtype.kind not in "biuf" or y.ndim == 0:
        raise FileFormatError(
            f"{path}: {part} is {y.dtype} {list(y.shape)}, not numbers, a row each"
        )
    y = y.astype("float64" if y.dtype.kind == "f" else "int64")  # any width and byte order
    name = request.task or suggested_task(y, level, str(path))
    task = find_task(name)
    if len(y) != rows:
        raise FileFormatError(
            f"{path}: {part} has {len(y)} rows for {rows} {level.unit}s: {task.takes} per row"
        )
    return task, task.targets(torch.from_numpy(y), rows, str(path)), about


def _given(parts: dict[str, Any]) -> Given:
    masks = {name: parts[f"{name}_mask"] for name in SPLITS if f"{name}_mask" in parts}
    columns = parts.get("columns") or {}
    return Given(masks, parts.get("split"), parts.get("time"), columns, parts.get("unknown"))


def _check(path: Path, parts: dict[str, Any]) -> None:
    """Checks types, shapes and indices of all parts but the targets."""
    missing = [name for name in ("x", "edge_index") if name not in parts]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}; it has {', '.join(parts)}")
    for name, (kinds, dims, wanted) in _SHAPES.items():
        part = parts.get(name)
        if part is None:
            continue
        fits = part.dtype.kind in kinds and part.ndim == dims
        if name.startswith("edge"):
            fits = fits and len(part) == 2
        if name == "batch":
            fits = fits and len(part) == len(parts["x"])
        if not fits:
            raise FileFormatError(
                f"{path}: {name} is {part.dtype} {list(part.shape)}, not {wanted}"
            )
    nodes = len(parts["x"])
    for name in ("edge_index", "edge_label_index"):
        edges = parts.get(name)
        if edges is not None and edges.size and (edges.min() < 0 or edges.max() >= nodes):
            wrong = edges.min() if edges.min() < 0 else edges.max()
            raise FileFormatError(f"{path}: {name} has {wrong}; there are {nodes} nodes")
    batch = parts.get("batch")
    if batch is not None and batch.size and not 0 <= batch.min() <= batch.max() < nodes:
        wrong = batch.min() if batch.min() < 0 else batch.max()
        raise FileFormatError(
            f"{path}: batch has {wrong}; graphs are numbered from 0, with a node each"
        )
    for name in ("edge_weight", "edge_attr"):
        part, count = parts.get(name), parts["edge_index"].shape[1]
        if part is not None and (part.dtype.kind not in "biuf" or len(part) != count):
            raise FileFormatError(
                f"{path}: {name} is {part.dtype} {list(part.shape)} for {count} edges"
            )


def loops_and_doubles(graphs: Sequence[Data]) -> str:
    """Counts of edges that are often there by mistake; an empty text where there are none."""
    loops = doubles = total = 0
    for graph in graphs:
        edges = graph.edge_index
        if not isinstance(edges, Tensor) or edges.layout is not torch.strided or edges.dim() != 2:
            continue
        loops += int((edges[0] == edges[1]).sum())
        total += edges.size(1)
        doubles += edges.size(1) - edges.unique(dim=1).size(1) if edges.size(1) else 0
    found = [f"{loops} self loops"] if loops else []
    found += [f"{doubles} edges that stand twice"] if doubles else []
    return f"Kept as they are: {' and '.join(found)} (of {total} edges)." if found else ""


def _graphs(
    path: Path, data: Data, batch: Tensor, count: int, targets: Tensor | None, level: Level
) -> list[Data]:
    """One ``Data`` per graph; its nodes keep their order.

    Raises:
        FileFormatError: An edge joins two graphs, or a graph has no nodes.
    """
    edges = data.edge_index
    across = (batch[edges[0]] != batch[edges[1]]).nonzero()
    if len(across):
        edge = int(across[0])
        ends = batch[edges[:, edge]].tolist()
        raise FileFormatError(f"{path}: edge {edge} joins graph {ends[0]} and graph {ends[1]}")
    sizes = torch.bincount(batch, minlength=count)
    if bool((sizes == 0).any()):
        raise FileFormatError(f"{path}: graph {int((sizes == 0).nonzero()[0])} has no nodes")
    order = torch.argsort(batch, stable=True)
    first = torch.cumsum(sizes, 0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device="cpu") - first.repeat_interleave(sizes)
    of_edge = batch[edges[0]]
    sorted_edges = torch.argsort(of_edge, stable=True)
    counts = torch.bincount(of_edge, minlength=count).tolist()
    nodes = order.split(sizes.tolist())
    chosen = sorted_edges.split(counts)
    made = []
    for number, (own, links) in enumerate(zip(nodes, chosen, strict=True)):
        graph = Data(x=data.x[own], edge_index=place[edges[:, links]].contiguous())
        for name in ("edge_weight", "edge_attr"):
            if name in data:
                graph[name] = data[name][links]
        if targets is not None:
            graph.y = targets[own] if level == NODE else targets[number : number + 1]
        made.append(graph)
    return made


def _of_graphs(
    path: Path, masks: tuple[Tensor, Tensor, Tensor], batch: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of graphs, of those of their nodes.

    Raises:
        LabelError: The nodes of a graph are in several splits.
    """
    split = torch.full((len(batch),), -1, dtype=torch.int64, device="cpu")
    for number, mask in enumerate(masks):
        split[mask] = number
    found = torch.full((count,), -1, dtype=torch.int64, device="cpu")
    found[batch] = split
    mixed = (found[batch] != split).nonzero()
    if len(mixed):
        raise LabelError(
            f"{path}: nodes of graph {int(batch[int(mixed[0])])} are in several splits: of many "
            "graphs every graph is in one"
        )
    return found == 0, found == 1, found == 2
