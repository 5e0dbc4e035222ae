"""Products of the rows of both ends of every edge, and the graph on which they are sources."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.graph import Graph

# Edges whose dot products are taken at once: both ends are gathered as float rows.
EDGE_BLOCK = 65_536


def edges_as_sources(graph: Graph) -> Graph:
    """The graph whose sources are the edges: a score per edge enters as that of a source."""

    def make() -> Graph:
        edges = torch.arange(graph.num_edges, dtype=torch.int32, device=graph.device)
        return Graph(graph.indptr, edges, graph.num_edges)

    value: Graph = graph.cached("edges_as_sources", make)
    return value


class EdgeDot(torch.autograd.Function):
    """``x_i . x_j`` of every edge and head, without keeping gathered rows for the gradient.

    Sums of integers are exact in float64, and rounded once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph, heads: int) -> Tensor:
        """``x`` ``[N, C]`` -> ``[E, H]``."""
        ctx.save_for_backward(x)
        ctx.graph, ctx.heads = graph, heads
        dots = []
        blocks = zip(graph.rows.split(EDGE_BLOCK), graph.indices.split(EDGE_BLOCK), strict=True)
        for i, j in blocks:
            both = x.index_select(0, i) * x.index_select(0, j)
            both = both.view(both.size(0), heads, x.size(1) // heads)
            dots.append(both.sum(2, dtype=torch.float64).float())
        return torch.cat(dots) if dots else x.new_zeros(0, heads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """``d/dx_i = sum_j g_ij x_j``, and the same along the reversed edges, by head."""
        (x,) = ctx.saved_tensors
        graph = ctx.graph
        indptr, indices, order = graph.transposed()
        made = []
        for h, part in enumerate(x.chunk(ctx.heads, 1)):
            weight = grad[:, h]
            forward = _weighted_bag(graph.indptr, graph.indices, part, weight)
            made.append(forward + _weighted_bag(indptr, indices, part, weight[order]))
        return torch.cat(made, 1), None, None


def _weighted_bag(indptr: Tensor, indices: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    if indices.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(indptr.numel() - 1, x.size(1))
    offsets = indptr.to(indices.dtype)
    result: Tensor = torch.embedding_bag(
        x.contiguous(), indices, offsets, False, 0, False, weight.contiguous(), True
    )[0]
    return result
