"""Loops that a layer with edge features gives every node: what stands on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import GraphError
from nodebits.graph import Graph
from nodebits.graph.edge_table import EdgeTable
from nodebits.graph.loops import EDGE_INDEX
from nodebits.nn.pairs import edge_features, edge_table, maps_codes

_REDUCED = ("mean", "add", "sum")


def check_fill(module: nn.Module) -> str | None:
    """Why the features of loops are not known; None where they are."""
    fill = getattr(module, "fill_value", "mean")
    loops = getattr(module, "add_self_loops", False)
    if getattr(module, "edge_dim", None) is None or not loops:
        return None
    if fill in _REDUCED if isinstance(fill, str) else isinstance(fill, int | float):
        return None
    return f"its loops have fill_value={fill!r}; 'mean', 'add' and numbers are known"


def attention_edges(
    layer: Any, graph: Graph, form: str, edge_attr: Any, linear: Any, columns: int | None = None
) -> tuple[Graph, EdgeTable | None]:
    """The edges of a layer of attention, and the rows that they have.

    Args:
        layer: It, whose ``add_self_loops`` gives every node a loop.
        graph: Topology.
        form: Of the adjacency that it was made from.
        edge_attr: As in :func:`nodebits.nn.pairs.edge_features`; None for none.
        linear: Maps the rows.
        columns: As in :func:`nodebits.nn.pairs.edge_features`.

    Raises:
        GraphError: If edges with features come as a matrix and get loops.
        ShapeError: As in :func:`nodebits.nn.pairs.edge_features`.
    """
    if edge_attr is None:
        return graph.with_self_loops() if layer.add_self_loops else graph, None
    if not layer.add_self_loops:
        return graph, edge_table(edge_attr, graph, layer, [linear], columns)
    features = edge_features(edge_attr, graph.num_edges, layer, columns)
    if form != EDGE_INDEX:
        raise GraphError(
            f"layer {layer.described} gives loops to edges with features, which follow the order "
            "of an edge_index: pass that in place of the matrix, or use add_self_loops=False"
        )
    looped, places = graph.with_placed_loops()
    loops = _rows_of_loops(looped, places, features, getattr(layer, "fill_value", None))
    if maps_codes(linear):
        return looped, looped.loop_table(features, loops, places)
    return looped, looped.loop_rows(features, loops, places)


def _rows_of_loops(looped: Graph, places: Tensor, features: Tensor, fill: Any) -> Tensor:
    """What stands on loops: a number, or features of the target's edges, reduced."""
    count = min(looped.num_src, looped.num_dst)
    if not isinstance(fill, str):
        return features.new_full((count, features.size(1)), float(fill))
    nothing = features.new_zeros(count, features.size(1))
    on_edges = torch.cat([features, nothing]).index_select(0, places)
    total = features.new_zeros(looped.num_dst, features.size(1))
    total = total.index_add(0, looped.rows, on_edges)[:count]
    if fill == "mean":
        total = total / (looped.degree[:count] - 1.0).clamp_min(1.0).view(-1, 1)
    return total
