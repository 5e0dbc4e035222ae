"""Loops that a layer with edge features gives every node: what stands on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import GraphError
from nodebits.graph import Graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.nn.inputs import NamedLayer

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


def with_loops(
    graph: Graph, form: str, features: Tensor | None, fill: Any, layer: NamedLayer
) -> tuple[Graph, Tensor | None, Tensor | None]:
    """A graph with a loop on every node, as PyG's layers of attention make it.

    Args:
        graph: Topology.
        form: Of the adjacency that it was made from.
        features: float32 ``[E, D]`` in the order in which the edges were given; None for none.
        fill: What stands on a loop: a number, or how features of the target's edges are reduced.
        layer: Who asks.

    Returns:
        The graph, rows of edges with those of loops behind them, and the row of every edge.

    Raises:
        GraphError: If the edges with features come as a matrix.
    """
    if features is None:
        return graph.with_self_loops(), None, None
    if form != EDGE_INDEX:
        raise GraphError(
            f"layer {layer.described} gives loops to edges with features, which follow the order "
            "of an edge_index: pass that in place of the matrix, or use add_self_loops=False"
        )
    looped, places = graph.with_placed_loops()
    count = min(graph.num_src, graph.num_dst)
    if not isinstance(fill, str):
        loops = features.new_full((count, features.size(1)), float(fill))
        return looped, torch.cat([features, loops]), places
    nothing = features.new_zeros(count, features.size(1))
    on_edges = torch.cat([features, nothing]).index_select(0, places)
    total = features.new_zeros(graph.num_dst, features.size(1))
    total = total.index_add(0, looped.rows, on_edges)[:count]
    if fill == "mean":
        total = total / (looped.degree[:count] - 1.0).clamp_min(1.0).view(-1, 1)
    return looped, torch.cat([features, total]), places
