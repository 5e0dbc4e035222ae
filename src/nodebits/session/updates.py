"""Updates of a session: what users pass, checked before anything is written or changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import (
    AccumulatorOverflowError,
    ConfigError,
    GraphError,
    NodeIndexError,
    ShapeError,
)
from nodebits.core.observer import check_finite
from nodebits.graph.sample import as_node_ids
from nodebits.plan.by_row import RowPlan
from nodebits.session.graph import ChangingGraph


class Checks:
    """Refuses what does not fit a session.

    Args:
        plan: Of its model.
        graph: Its graph.
        features: Any rows of its features.
    """

    def __init__(self, plan: RowPlan, graph: ChangingGraph, features: Tensor) -> None:
        self._plan, self._graph, self._like = plan, graph, features[:0]

    def nodes(self, node_ids: Any, removed: Tensor, name: str = "node_ids") -> Tensor:
        """Nodes that are there, int64 ``[k]``.

        Raises:
            NodeIndexError: If one is none, or was removed; with its position.
            ShapeError: If they are no list of integers.
        """
        index = as_node_ids(node_ids, torch.device("cpu"), name)
        count = self._graph.num_nodes
        outside = (index < 0) | (index >= count)
        if bool(outside.any()):
            at = int(outside.nonzero()[0])
            raise NodeIndexError(
                f"{name}[{at}] is {int(index[at])}: the graph has the nodes 0 to {count - 1}"
            )
        gone = removed[index]
        if bool(gone.any()):
            at = int(gone.nonzero()[0])
            raise NodeIndexError(f"{name}[{at}] is {int(index[at])}, a node that was removed")
        return index

    def edges(self, edge_index: Any, removed: Tensor) -> Tensor:
        """Edges between nodes that are there, int64 ``[2, k]``.

        Raises:
            GraphError: If they are no integers, or of another shape.
            NodeIndexError: As :meth:`nodes`.
        """
        edges = edge_index
        if not isinstance(edges, Tensor):
            try:
                edges = torch.as_tensor(np.asarray(edges), device="cpu")
            except (TypeError, ValueError) as error:
                raise GraphError(
                    f"edges are a {type(edge_index).__name__}: expected integers [2, k], sources "
                    f"above targets ({error})"
                ) from None
        whole = not edges.is_floating_point() and not edges.is_complex()
        if edges.numel() == 0 and edges.dim() == 2 and edges.size(0) == 2:
            return torch.empty((2, 0), dtype=torch.int64, device="cpu")
        if not whole or edges.dtype == torch.bool or edges.dim() != 2 or edges.size(0) != 2:
            raise GraphError(
                f"edges are {edges.dtype} {list(edges.shape)}: expected integers [2, k], sources "
                "above targets"
            )
        edges = edges.to("cpu", torch.int64)
        for row, name in enumerate(("source", "target")):
            try:
                self.nodes(edges[row], removed, f"edge_index[{row}]")
            except NodeIndexError as error:
                raise NodeIndexError(f"{error} (the {name} of an edge)") from None
        return edges.contiguous()

    def weight(self, edge_weight: Any, count: int) -> Tensor | None:
        """A weight per edge, float32 ``[k]``; None in a graph without weights.

        Raises:
            ConfigError: If the graph has weights and none are given, or the other way round; or
                one is negative, whose codes have a zero point.
            ShapeError: If they are no real numbers, or not as many as edges.
            NonFiniteError: If one is NaN or infinite.
        """
        if edge_weight is None:
            if self._graph.weighted:
                raise ConfigError("the edges of this session have weights: pass edge_weight")
            return None
        if not self._graph.weighted:
            raise ConfigError(
                "the edges of this session have no weights: begin it with edge_weight, or leave "
                "this one out"
            )
        try:
            weight: Tensor = torch.as_tensor(edge_weight, device="cpu").detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"edge_weight is a {type(edge_weight).__name__}: expected a number for each edge "
                f"({error})"
            ) from None
        if weight.is_complex() or weight.layout != torch.strided:
            raise ShapeError(
                f"edge_weight is {weight.dtype} ({weight.layout}): expected a real number for each "
                "edge"
            )
        weight = weight.to("cpu", torch.float32).reshape(-1)
        if weight.numel() != count:
            raise ShapeError(f"edge_weight has {weight.numel()} values for {count} edges")
        check_finite(weight, "edge_weight")
        if bool((weight < 0).any()):
            at = int((weight < 0).nonzero()[0])
            raise ConfigError(
                f"edge_weight[{at}] is {float(weight[at])}: a session takes weights from 0 on"
            )
        return weight.contiguous()

    def features(self, features: Any, count: int | None = None) -> Tensor:
        """A row per node, as those that the session has.

        Args:
            features: float ``[k, C]``.
            count: k, or None for any.

        Raises:
            ShapeError: If type or shape is another.
            NonFiniteError: If a value is NaN or infinite; with its position.
        """
        try:
            rows: Tensor = torch.as_tensor(features, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(f"features are a {type(features).__name__}: {error}") from None
        width = list(self._like.shape[1:])
        if rows.layout != torch.strided or list(rows.shape[1:]) != width or rows.dim() == 0:
            raise ShapeError(
                f"features are {rows.dtype} {list(rows.shape)}: expected a row of shape {width} "
                "for each node"
            )
        if rows.is_floating_point() != self._like.is_floating_point() or rows.is_complex():
            raise ShapeError(f"features are {rows.dtype}: this session began with others")
        if count is not None and rows.size(0) != count:
            raise ShapeError(f"there are {rows.size(0)} rows of features for {count} nodes")
        rows = rows.detach().to("cpu", self._like.dtype).contiguous()
        if rows.is_floating_point():
            check_finite(rows, "features")
        return rows

    def degrees(self, edges: Tensor) -> None:
        """Refuses edges that would make a sum larger than int32 holds.

        Raises:
            AccumulatorOverflowError: Names the node.
        """
        most = min(self._plan.most_edges.values(), default=None)
        if most is None or edges.size(1) == 0:
            return
        targets, more = edges[1].unique(return_counts=True)
        degree = self._graph.in_degree(targets) + more + 1  # with a loop
        if int(degree.max()) > most:
            at = int(degree.argmax())
            raise AccumulatorOverflowError(
                f"node {int(targets[at])} would have {int(degree[at])} edges, and int32 sums are "
                f"exact only to {most}"
            )
