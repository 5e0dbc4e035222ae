"""What a session begins with: features of all nodes, and the model's plan by rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, ShapeError, UnsupportedLayerError
from nodebits.graph import Graph
from nodebits.plan.by_row import NotByRow, RowPlan
from nodebits.runtime.packed import PackedModel

# Nodes of the edges that stand for those of a graph without any.
_FEW = 8


def features_of_all(features: Any) -> Tensor:
    """Features of all nodes, as plans take them."""
    if not isinstance(features, Tensor) or features.layout != torch.strided:
        raise ShapeError(
            f"features are a {type(features).__name__}: expected a dense tensor [num_nodes, "
            "channels]"
        )
    if features.dim() not in (1, 2) or (features.dim() == 1 and features.is_floating_point()):
        raise ShapeError(
            f"features are {features.dtype} {list(features.shape)}: expected a float tensor "
            "[num_nodes, channels], or ids [num_nodes]"
        )
    x = features.detach().to("cpu")
    return (x.float() if x.is_floating_point() else x.long()).contiguous()


def row_plan(packed: PackedModel, x: Tensor, graph: Graph) -> RowPlan:
    """The model's plan, by rows: that of a call with the session's very arguments.

    Raises:
        UnsupportedLayerError: If a step of it is not known to work row by row; names the layer.
        ConfigError: If the model has no plan.
    """
    if not isinstance(packed, PackedModel):
        raise ConfigError(
            f"a session runs a packed model, this is a {type(packed).__name__}: convert() makes one"
        )
    weight = graph.edge_weight
    edges = Graph(graph.indptr, graph.indices, graph.num_src).edge_index()
    if not graph.num_edges:
        x, edges, weight = _some_edges(x, weight)
    plan = packed.plan(x, edges, *(() if weight is None else (weight,)))
    if isinstance(plan, str):
        raise ConfigError(f"there is no session for a model without a plan: {plan}")
    try:
        return RowPlan(plan, of_all=True)
    except NotByRow as error:
        raise UnsupportedLayerError(
            f"{error.layer} cannot be updated row by row: {error}. Call packed.predict on the "
            "changed graph instead"
        ) from None


def _some_edges(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """A call of the same kind as one without edges, of which there is no plan."""
    if not x.size(0):
        shape = (_FEW, *x.shape[1:])
        made = torch.linspace(-1, 1, math.prod(shape), device="cpu").view(shape)
        x = made if x.is_floating_point() else made.new_zeros(shape, dtype=x.dtype)
    source = torch.arange(min(_FEW, x.size(0)), device="cpu")
    edges = torch.stack([source, source.roll(-1)])
    return x, edges, None if weight is None else weight.new_ones(edges.size(1))
