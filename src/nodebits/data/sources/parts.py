"""Arrays of the user's own as a data set: one graph, or many with a graph number per node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodebits.core.errors import ConfigError, FileFormatError, LabelError
from nodebits.data.sources.base import Request

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

    from nodebits.data.base import Dataset
    from nodebits.tasks import Task

SPLITS = ("train", "val", "test")
_SHAPES = {
    "x": ("biuf", 2, "numbers [N, F]"),
    "edge_index": ("iu", 2, "node numbers [2, E]"),
    "batch": ("iu", 1, "the number of a graph per row of x"),
}


def build(path: Path, parts: dict[str, Any], request: Request) -> Dataset:
    """Builds the record of one graph, or of many.

    Args:
        path: Where it was read, for messages; the last part is the set's name.
        parts: ``x`` ``[N, F]``, ``edge_index`` ``[2, E]``, ``batch`` ``[N]`` where there are many
            graphs, ``y`` ``[rows, ...]`` and masks ``[rows]``, a row per node or per graph.
        request: Of the user; its task, or else the one that ``y`` looks like.

    Raises:
        FileFormatError: A part is missing, has another shape or type, or names no node or graph.
        LabelError: ``y`` is not what the task takes.
        ConfigError: ``split``, ``use_node_attr`` or the task does not fit.
        NonFiniteError: A feature is NaN or infinite.
    """
    import torch

    from nodebits.data.base import graph_dataset, node_dataset
    from nodebits.data.features import normalize_rows
    from nodebits.tasks import find_task, suggested_task
    from nodebits.tasks.base import GRAPH, NODE

    if request.use_node_attr:
        raise ConfigError(f"use_node_attr is for the sets of the TU collection, not {path.name}")
    _check(path, parts)
    y = parts["y"]
    if y.dtype.kind not in "biuf" or y.ndim == 0:
        raise FileFormatError(f"{path}: y is {y.dtype} {list(y.shape)}, not numbers, a row each")
    y = y.astype("float64" if y.dtype.kind == "f" else "int64")  # any width and byte order
    level = GRAPH if "batch" in parts else NODE
    rows = len(parts["x"]) if level == NODE else int(parts["batch"].max(initial=-1)) + 1
    name = request.task or suggested_task(y, level, str(path))
    task = find_task(name)
    if task.level != level:
        lacks = "lacks batch, the graph of each node" if level == NODE else "has batch: many graphs"
        raise ConfigError(f"task {name!r} is of {task.level.unit}s, and {path} {lacks}")
    if len(y) != rows:
        raise FileFormatError(
            f"{path}: y has {len(y)} rows for {rows} {level.unit}s: {task.takes} per row"
        )
    targets = task.targets(torch.from_numpy(y), rows, str(path))
    try:
        masks, notes = _masks(path, parts, targets, task, request)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    x = torch.from_numpy(parts["x"].astype("float32"))
    if request.normalize_features:
        normalize_rows(x)
        notes += " Features: rows divided by their sum."
    edges = torch.from_numpy(parts["edge_index"].astype("int64"))
    own, known_as = "the user's own", path.resolve().name
    if level == NODE:
        data = _data(x, edges, targets)
        found = node_dataset(known_as, data, masks, notes, own, name)
    else:
        graphs = _graphs(path, x, edges, torch.from_numpy(parts["batch"].astype("int64")), targets)
        train, val, test = (mask.nonzero().flatten() for mask in masks)
        found = graph_dataset(known_as, graphs, (train, val, test), notes, own, name)
    return replace(found, features_normalized=bool(request.normalize_features))


def _check(path: Path, parts: dict[str, Any]) -> None:
    """Checks types, shapes and indices of all parts but the targets."""
    missing = [name for name in ("x", "y", "edge_index") if name not in parts]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}; it has {', '.join(parts)}")
    for name, (kinds, dims, wanted) in _SHAPES.items():
        part = parts.get(name)
        if part is None:
            continue
        fits = part.dtype.kind in kinds and part.ndim == dims
        if name == "edge_index":
            fits = fits and len(part) == 2
        if name == "batch":
            fits = fits and len(part) == len(parts["x"])
        if not fits:
            raise FileFormatError(
                f"{path}: {name} is {part.dtype} {list(part.shape)}, not {wanted}"
            )
    nodes = len(parts["x"])
    edges, batch = parts["edge_index"], parts.get("batch")
    if edges.size and (edges.min() < 0 or edges.max() >= nodes):
        wrong = edges.min() if edges.min() < 0 else edges.max()
        raise FileFormatError(f"{path}: edge_index has {wrong}; there are {nodes} nodes")
    if batch is not None and batch.size and not 0 <= batch.min() <= batch.max() < nodes:
        wrong = batch.min() if batch.min() < 0 else batch.max()
        raise FileFormatError(
            f"{path}: batch has {wrong}; graphs are numbered from 0, with a node each"
        )


def _masks(
    path: Path, parts: dict[str, Any], targets: Tensor, task: Task, request: Request
) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
    """The file's own split, or a drawn one; and a note on it."""
    import torch

    from nodebits.data.splits import drawn_masks

    given = [f"{name}_mask" for name in SPLITS if f"{name}_mask" in parts]
    if not given:
        task.check(targets, torch.arange(len(targets), device="cpu"), None, "drawn")
        masks, how = drawn_masks(targets, task, request.seed())
        return masks, f"Split drawn with seed {request.seed()}: {how}."
    if request.split is not None:
        raise ConfigError(f"split is {request.split!r}: {path.name} has a split of its own")
    if len(given) < len(SPLITS):
        raise FileFormatError(f"{path} has {', '.join(given)}: all three or none")
    train, val, test = (torch.from_numpy(parts[name].astype(bool)) for name in given)
    if any(mask.shape != (len(targets),) for mask in (train, val, test)):
        raise FileFormatError(
            f"{path}: masks are one value per {task.level.unit}, [{len(targets)}]"
        )
    for split, mask in zip(SPLITS, (train, val, test), strict=True):
        task.check(targets, mask.nonzero().flatten(), None, split)
    return (train, val, test), "Split: the file's own."


def _data(x: Tensor, edges: Tensor, y: Tensor) -> Data:
    from torch_geometric.data import Data

    return Data(x=x, edge_index=edges, y=y)


def _graphs(path: Path, x: Tensor, edges: Tensor, batch: Tensor, targets: Tensor) -> list[Data]:
    """One ``Data`` per graph; its nodes keep their order.

    Raises:
        FileFormatError: An edge joins two graphs, or a graph has no nodes.
    """
    import torch

    across = (batch[edges[0]] != batch[edges[1]]).nonzero()
    if len(across):
        edge = int(across[0])
        ends = batch[edges[:, edge]].tolist()
        raise FileFormatError(f"{path}: edge {edge} joins graph {ends[0]} and graph {ends[1]}")
    sizes = torch.bincount(batch, minlength=len(targets))
    if bool((sizes == 0).any()):
        raise FileFormatError(f"{path}: graph {int((sizes == 0).nonzero()[0])} has no nodes")
    order = torch.argsort(batch, stable=True)
    first = torch.cumsum(sizes, 0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device="cpu") - first.repeat_interleave(sizes)
    of_edge = batch[edges[0]]
    local, sorted_edges = place[edges], torch.argsort(of_edge, stable=True)
    counts = torch.bincount(of_edge, minlength=len(targets)).tolist()
    nodes = order.split(sizes.tolist())
    links = local[:, sorted_edges].split(counts, dim=1)
    each = zip(nodes, links, targets.split(1), strict=True)
    return [_data(x[own], edge.contiguous(), y) for own, edge, y in each]
