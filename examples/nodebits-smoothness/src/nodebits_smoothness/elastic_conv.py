"""Elastic message passing (Liu et al., ICML 2021): sparse differences beside smooth ones.

``min 1/2 |X - H|^2 + lambda2/2 tr(X^T L X) + lambda1 |B X|_21``: B has a row per undirected edge,
``(B X)_e = X_i d_i^-1/2 - X_j d_j^-1/2`` and ``B^T B = I - A_hat``. A proximal step on the primal,
an ascent with a projection on the dual Z, one row per edge:

    Y     = gamma H + (1 - gamma) A_hat X        gamma = 1 / (1 + lambda2)
    X_bar = Y - gamma B^T Z                      beta = 1 / (2 gamma)
    Z     = proj(Z + beta B X_bar)               rows to the ball of radius lambda1
    X     = Y - gamma B^T Z
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, GraphError
from nodebits.core.file_fields import STEPS, Choice, Number, Options
from nodebits.graph import Graph, as_graph
from nodebits.nn.functional import AnyRows, quantize_rows
from nodebits.nn.linear import requantize
from nodebits.nn.placement import Placement
from nodebits.nn.propagation import Propagation, show_state
from nodebits.nn.registry import register_layer
from nodebits.ops import coo_to_csr
from nodebits.ops.autograd import neighbor_sum

NORMS = ("L21", "L1")


class Incidence:
    """B of a symmetric graph without its scaling: which two nodes every undirected edge joins.

    Args:
        graph: Symmetric, unweighted; self loops have no row.

    Raises:
        GraphError: If an edge lacks its reverse.
    """

    def __init__(self, graph: Graph) -> None:
        rows, cols, nodes = graph.rows, graph.indices.long(), graph.num_dst
        there = (rows[rows < cols] * nodes + cols[rows < cols]).unique()
        back = (cols[rows > cols] * nodes + rows[rows > cols]).unique()
        if not torch.equal(there, back):
            raise GraphError(
                "elastic message passing needs every edge in both directions: make the graph "
                "undirected"
            )
        self.head, self.tail = there // nodes, there % nodes
        edges = torch.arange(there.numel(), device=graph.device)
        ends = torch.cat([self.head, self.tail])
        sign = torch.ones(ends.numel(), device=graph.device)
        sign[edges.numel() :] = -1.0
        indptr, indices, perm = coo_to_csr(ends, edges.repeat(2), nodes)
        # B^T as a neighbour sum from edges to nodes.
        self.transposed = Graph(indptr, indices, edges.numel(), None, sign[perm])

    def difference(self, rows: Tensor) -> Tensor:
        """float32 ``[N, C]`` -> ``[E/2, C]``."""
        return rows.index_select(0, self.head) - rows.index_select(0, self.tail)

    def gather(self, edges: Tensor) -> Tensor:
        """float32 ``[E/2, C]`` -> ``[N, C]``, the transposed map."""
        sign = self.transposed.edge_weight
        assert sign is not None
        return neighbor_sum(edges, self.transposed, sign.view(-1, 1))


def _undirected(graph: Graph) -> Graph:
    """The graph by its edges alone, so that every form gets one loop per node.

    Raises:
        GraphError: If edges have weights.
    """
    if graph.edge_weight is not None:
        raise GraphError("elastic message passing takes no edge weights: use an adjacency of ones")
    return graph.topology()


def _incidence(graph: Graph) -> Incidence:
    value: Incidence = graph.cached("incidence", lambda: Incidence(graph))
    return value


def _project(z: Tensor, radius: float, norm: str) -> Tensor:
    if norm == "L1":
        return z.clamp(-radius, radius)
    length = z.square().sum(1, keepdim=True).clamp_min(1e-30).sqrt()
    return z * (radius / length).clamp(max=1.0)


def _elastic_steps(layer: Any, h: Tensor, graph: Graph, smooth: Any, difference: Any) -> Tensor:
    """The recursion; ``smooth(k, x)`` is ``A_hat x``, ``difference(k, x)`` is ``B x``."""
    gamma = 1.0 / (1.0 + layer.lambda2)
    beta = 0.5 / gamma
    incidence, factor = _incidence(graph), graph.deg_inv_sqrt.view(-1, 1)
    x, dual, pull = h, None, None
    for step in range(layer.steps):
        y = gamma * h + smooth(step, x) * (1.0 - gamma)
        if layer.lambda1 > 0:
            guess = y if pull is None else y - pull
            ascent = beta * difference(step, guess)
            dual = _project(ascent if dual is None else dual + ascent, layer.lambda1, layer.norm)
            pull = gamma * (incidence.gather(dual) * factor)
            y = y - pull
        x = y
        show_state(x)
    return x


def _check(lambda1: float, lambda2: float, norm: str) -> None:
    if lambda1 < 0 or lambda2 < 0:
        raise ConfigError(f"lambda1={lambda1}, lambda2={lambda2}: neither may be negative")
    if norm not in NORMS:
        raise ConfigError(f"norm is {norm!r}: use one of {', '.join(NORMS)}")


class ElasticConv(nn.Module):
    """Elastic message passing in float.

    Args:
        K: Steps.
        lambda1: Weight of the sparse differences; 0 leaves APPNP with ``alpha = gamma``.
        lambda2: Weight of the smooth ones.
        channels: Columns, for ranges per column; 0 if unknown.
        norm: ``"L21"`` (rows of differences vanish together) or ``"L1"``.
    """

    def __init__(
        self,
        K: int,
        lambda1: float = 3.0,
        lambda2: float = 3.0,
        channels: int = 0,
        norm: str = "L21",
    ) -> None:
        super().__init__()
        _check(lambda1, lambda2, norm)
        self.steps, self.lambda1, self.lambda2 = K, lambda1, lambda2
        self.channels, self.norm = channels, norm

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """Propagates float32 ``[N, C]``."""
        graph = _undirected(as_graph(edge_index, x.size(0), x.size(0))).with_self_loops()
        factor = graph.deg_inv_sqrt.view(-1, 1)
        return _elastic_steps(
            self,
            x,
            graph,
            lambda step, rows: neighbor_sum(rows * factor, graph) * factor,
            lambda step, rows: _incidence(graph).difference(rows * factor),
        )


@register_layer(ElasticConv)
class QuantElasticConv(Propagation):
    """:class:`ElasticConv` with sites ``message_k`` on X and ``difference_k`` on X_bar.

    ``B X_bar`` is a difference of integer codes, in which the zero point cancels. The dual is a
    state per edge and stays in float.
    """

    layer_type = "ElasticConv"
    options: ClassVar[Options] = {
        "steps": STEPS,
        "lambda1": Number(0.0),
        "lambda2": Number(0.0),
        "norm": Choice(NORMS),
    }
    derived_options: ClassVar = {"steps": lambda module: module.steps}
    channels: int
    lambda1: float
    lambda2: float
    norm: str

    def place_quantizers(self, place: Placement, path: str) -> None:
        self.place_steps(place, path, self.channels)

    def step_sites(self) -> tuple[str, ...]:
        return ("message", "difference") if self.lambda1 > 0 else ("message",)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """Propagates.

        Args:
            x: float32 ``[N, C]``.
            edge_index: Any adjacency form of an undirected graph without weights.

        Returns:
            float32 ``[N, C]``.
        """
        x, graph = self.enter(x, edge_index)
        graph = _undirected(graph)
        with self.layer_scope(graph):
            operator = self.operator(graph)

            def difference(step: int, rows: Tensor) -> Tensor:
                codes = quantize_rows(self.site("difference", step), rows, operator.factor)
                return _difference(codes, _incidence(operator.graph))

            x = _elastic_steps(
                self,
                x,
                operator.graph,
                lambda step, rows: operator(self.site("message", step), rows),
                difference,
            )
            return requantize(self.output, x)


def _difference(rows: AnyRows, incidence: Incidence) -> Tensor:
    """``B`` of codes: integer differences, then the scale."""
    if rows.by_row:
        raise ConfigError("differences of codes need one scale per tensor or column, not per row")
    return incidence.difference(rows.float_codes()) * rows.scale
