"""Checks of graphs that are trained on: features, edges, masks, and that a list fits together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from nodebits.core.errors import ConfigError, GraphError, NodeIndexError, NonFiniteError, ShapeError
from nodebits.graph import as_graph
from nodebits.train.errors import IgnoredDataWarning, OverlappingSplitsError
from nodebits.train.inputs import LABEL_FIELDS

_PER_EDGE = ("edge_weight", "edge_attr", "edge_type")


def checked_graph(data: Any, place: str) -> Data:
    """Returns ``data`` with features and edge weights in float32: itself where they are.

    Raises:
        ConfigError: It is no ``Data``.
        ShapeError: Features are missing, sparse, or no matrix; a field per edge has another length
            or is no tensor; ``num_nodes`` is another than the rows of ``x``.
        GraphError: The adjacency is missing or malformed, or there are no nodes.
        NodeIndexError: An edge names a node that does not exist.
        NonFiniteError: A feature or an edge weight is NaN or infinite.
    """
    if not isinstance(data, Data):
        hint = ""
        if type(data).__name__ == "HeteroData":
            hint = "; for several node types: nodebits.train.HeteroProblem(data, node_type)"
        raise ConfigError(f"{place} is a {type(data).__name__}, not a PyG Data{hint}")
    x = checked_rows(data.x, place)
    if x.size(0) == 0:
        raise GraphError(f"{place} has no nodes: leave it out of the data")
    if data.num_nodes != x.size(0):
        raise ShapeError(
            f"{place}: num_nodes is {data.num_nodes}, but x has {x.size(0)} rows: give every node "
            "a row, or delete num_nodes"
        )
    num_edges = _check_edges(data, x.size(0), place)
    fields = {"x": x}
    for name in _PER_EDGE:
        if name in data and data[name] is not None:
            fields[name] = _per_edge(data[name], name, num_edges, place)
    changed = {name: value for name, value in fields.items() if value is not data[name]}
    if not changed:
        return data
    converted = copy.copy(data)  # the caller's own is left as it is
    for name, value in changed.items():
        converted[name] = value
    return converted


def _per_edge(value: Any, name: str, num_edges: int | None, place: str) -> Tensor:
    """Returns a field with a row per edge; real numbers and all weights are in float32."""
    if not isinstance(value, Tensor):
        raise ShapeError(
            f"{place}: {name} is a {type(value).__name__}: it must be a tensor with a row per edge"
        )
    if num_edges is not None and (value.dim() == 0 or value.size(0) != num_edges):
        raise ShapeError(
            f"{place}: {name} has shape {list(value.shape)} for {num_edges} edges: its first "
            "dimension counts the edges"
        )
    if value.is_complex() or not (value.is_floating_point() or name == "edge_weight"):
        return value
    numbers: Tensor = value.float()  # a finite float64 may be infinite then
    _check_finite(numbers, place, name)
    return numbers


def checked_rows(x: Any, place: str) -> Tensor:
    """Features in float32, or node numbers for an embedding as they are.

    Raises:
        ShapeError: They are missing, sparse, or no matrix.
        NonFiniteError: One is NaN or infinite.
    """
    if not isinstance(x, Tensor):
        found = "missing" if x is None else f"a {type(x).__name__}"
        raise ShapeError(f"{place}: x is {found}: it must be a float tensor [nodes, features]")
    if x.layout is not torch.strided:
        raise ShapeError(f"{place}: x is sparse: use data.x = data.x.to_dense()")
    whole = not x.is_floating_point() and not x.is_complex()
    if x.is_complex() or (x.dim() != 2 and not (whole and x.dim() == 1)):
        raise ShapeError(
            f"{place}: x is {x.dtype} {list(x.shape)}: it must be a float tensor [nodes, features]"
        )
    if whole:  # node numbers for an embedding; whether there is one, the model knows
        return x
    matrix: Tensor = x.float()  # a finite float64 may be infinite then
    _check_finite(matrix, place, "x")
    return matrix


def _check_finite(value: Tensor, place: str, name: str) -> None:
    finite = torch.isfinite(value)
    if bool(finite.all()):
        return
    bad = (~finite).nonzero()
    raise NonFiniteError(
        f"{place}: {name} holds {len(bad)} NaN or infinite values, the first at "
        f"{bad[0].tolist()}; clean them before training"
    )


def _check_edges(data: Data, num_nodes: int, place: str) -> int | None:
    """Checks the adjacency; returns the number of edges of an ``edge_index``."""
    edge_index = data.edge_index
    if edge_index is None:
        if "adj_t" not in data or data.adj_t is None:
            raise GraphError(f"{place} has neither edge_index nor adj_t")
        edge_index = data.adj_t
    if not isinstance(edge_index, Tensor) or edge_index.layout is not torch.strided:
        try:
            as_graph(edge_index, num_nodes)
        except GraphError as error:
            raise GraphError(f"{place}: {error}") from error
        return None
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise GraphError(
            f"{place}: edge_index has shape {list(edge_index.shape)}: it must be [2, edges], "
            "sources above targets"
        )
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise GraphError(
            f"{place}: edge_index must hold int64 or int32, got {edge_index.dtype}: use "
            "data.edge_index.long()"
        )
    outside = (edge_index < 0) | (edge_index >= num_nodes)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise NodeIndexError(
            f"{place}: edge_index[{row}, {column}] is {int(edge_index[row, column])}, but nodes "
            f"are numbered 0 to {num_nodes - 1}"
        )
    return edge_index.size(1)


def check_alike(graphs: Sequence[Data]) -> None:
    """Checks that graphs can be put into one batch.

    Raises:
        ShapeError: A graph has another width or dtype in one of its fields than graph 0, or lacks
            it; names the graph and the field.
    """
    first = _forms(graphs[0])
    for number, graph in enumerate(graphs):
        own = _forms(graph)
        for name in [*first, *(n for n in own if n not in first)]:
            if own.get(name) == first.get(name):
                continue
            raise ShapeError(
                f"graph {number}: {name} is {own.get(name, 'missing')}, but graph 0 has "
                f"{first.get(name, 'none')}: all graphs of a list need the same fields, widths and "
                "dtypes"
            )


def _forms(graph: Data) -> dict[str, str]:
    """Dtype and trailing dimensions of every tensor field that is joined along its first."""
    forms = {}
    for name, value in graph.to_dict().items():
        if not isinstance(value, Tensor) or name in LABEL_FIELDS:
            continue
        if value.layout is not torch.strided:
            forms[name] = f"{value.dtype} {value.layout}"
            continue
        joined = None if value.dim() == 0 else graph.__cat_dim__(name, value)
        sizes = [str(s) for s in value.shape]
        if isinstance(joined, int):
            sizes[joined] = "*"
        forms[name] = f"{value.dtype} [{', '.join(sizes)}]"
    return forms


def mask_rows(
    data: Any, split: str, num_nodes: int, column: int | None = None, unit: str = "node"
) -> Tensor:
    """Returns the mask of a split, bool ``[num_nodes]``.

    Args:
        data: Holds the mask by name.
        split: Of it.
        num_nodes: Rows that it must have.
        column: Of a mask ``[num_nodes, splits]``; None is the first.
        unit: What a row is, for messages.

    Raises:
        ShapeError: The mask is no bool tensor ``[num_nodes]``; says how to make it one.
        ConfigError: It has no such column.
    """
    name = f"{split}_mask"
    mask = data[name] if name in data else None
    if isinstance(mask, Tensor) and mask.shape == (num_nodes,) and mask.dtype == torch.bool:
        return mask
    if mask is None:
        raise ShapeError(
            f"{name} is missing: it must be a bool tensor of shape [{num_nodes}], such as "
            f"data.{name} = torch_geometric.utils.index_to_mask(numbers, size={num_nodes})"
        )
    several = isinstance(mask, Tensor) and mask.dim() == 2 and mask.size(0) == num_nodes
    if several and mask.dtype == torch.bool and mask.size(1):
        chosen = 0 if column is None else column
        if not 0 <= chosen < mask.size(1):
            raise ConfigError(
                f"split is {chosen}, but {name} has {mask.size(1)} columns, 0 to {mask.size(1) - 1}"
            )
        if column is None and mask.size(1) > 1 and split == "train":
            warnings.warn(
                f"the masks have {mask.size(1)} columns, a split each: the first is used. Pass "
                f"nodebits.train.NodeProblem(data, split=0) to say which",
                IgnoredDataWarning,
                stacklevel=4,
            )
        picked: Tensor = mask[:, chosen]
        return picked
    hint = f", not a {type(mask).__name__}: data.{name} = torch.as_tensor(data.{name})"
    if isinstance(mask, Tensor) and (mask.shape == (num_nodes,) or several):
        hint = f", not {mask.dtype}: data.{name} = data.{name}.bool()"
    elif isinstance(mask, Tensor):
        hint = (
            f" ({list(mask.shape)} is given); of {unit} numbers: data."
            f"{name} = torch_geometric.utils.index_to_mask(numbers, size={num_nodes})"
        )
    raise ShapeError(f"{name} must be a bool tensor of shape [{num_nodes}]{hint}")


def refuse_overlap(splits: Mapping[Any, Tensor], unit: str) -> None:
    """Refuses what is in two splits: a figure there says nothing about what is new.

    Args:
        splits: Numbers of the rows of every split, by its name.
        unit: What a row is, such as ``"node"``.

    Raises:
        OverlappingSplitsError: Names the splits and counts what they share.
    """
    shared = []
    for one, other in combinations(splits, 2):
        both = splits[other][torch.isin(splits[other], splits[one])].unique().numel()
        if both:
            count = splits[other].unique().numel()
            shared.append(f"{both} of the {count} {other} {unit}s are in the {one} split too")
    if shared:
        raise OverlappingSplitsError(
            f"{', and '.join(shared)}: figures of those say nothing about new {unit}s. Give every "
            f"{unit} to one split"
        )


def graph_rows(rows: Any, num_graphs: int, split: str) -> Tensor:
    """Returns the numbers of the graphs of a split, int64.

    Args:
        rows: Graph numbers, or a bool mask ``[num_graphs]``.
        num_graphs: Number of graphs.
        split: Name of the split, for errors.

    Raises:
        ShapeError: They are no vector of whole numbers.
        NodeIndexError: A number is not that of a graph.
    """
    try:
        numbers = rows if isinstance(rows, Tensor) else torch.as_tensor(list(rows), device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"the {split} split is a {type(rows).__name__} ({error}): it must hold the numbers of "
            f"graphs, or be a bool mask [{num_graphs}]"
        ) from error
    if numbers.dtype == torch.bool and numbers.shape == (num_graphs,):
        return numbers.nonzero().view(-1)
    if numbers.numel() == 0:
        return numbers.new_zeros(0, dtype=torch.int64)
    if numbers.dim() != 1 or numbers.dtype not in (torch.int64, torch.int32):
        raise ShapeError(
            f"the {split} split is {numbers.dtype} {list(numbers.shape)}: it must hold the numbers "
            f"of graphs, or be a bool mask [{num_graphs}]"
        )
    outside = (numbers < 0) | (numbers >= num_graphs)
    if bool(outside.any()):
        value = int(numbers[outside][0])
        raise NodeIndexError(
            f"the {split} split names graph {value}, but graphs are numbered 0 to {num_graphs - 1}"
        )
    return numbers.to(torch.int64)
