"""The edges of a layer by relation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.graph import Graph
from nodebits.graph.loops import SPARSE_TENSOR
from nodebits.nn.layer import QuantLayer


def by_relation(layer: QuantLayer, graph: Graph, edge_type: Any, count: int) -> list[Graph]:
    """A graph for every relation, over the same sources and targets.

    Args:
        layer: Who reads them.
        graph: All edges.
        edge_type: int64 ``[E]``; None where the values of a ``SparseTensor`` say it.
        count: Number of relations.

    Raises:
        GraphError: If there are no relations, or not one for every edge.
        NodeIndexError: If one is not below ``count``.
    """
    if graph.form == SPARSE_TENSOR and edge_type is None:
        weight = graph.edge_weight
        ones = torch.ones(graph.num_edges, dtype=torch.int64, device=graph.device)
        edge_type = ones if weight is None else weight.long()
    elif graph.edge_weight is not None or edge_type is None:
        what = "no edge_type" if edge_type is None else "edge weights, which it does not read"
        raise GraphError(
            f"layer {layer.described} got {what}: pass an edge_index, and the relation of every "
            "edge as edge_type"
        )
    if not isinstance(edge_type, Tensor):
        kind = type(edge_type).__name__
        raise GraphError(f"layer {layer.described} got edge_type as {kind}: pass an int64 tensor")
    return graph.topology().by_relation(edge_type, count)
