"""The cosine of both ends of every edge, from integer codes: AGNN's score.

A scale that all rows share cancels, so dot products and squared lengths are integers (exact in
float32 to 2^24, 258 columns of 8-bit codes).
"""

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


class _EdgeDot(torch.autograd.Function):
    """``x_i . x_j`` of every edge, in blocks, without keeping gathered rows for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph) -> Tensor:
        """``x`` ``[N, C]`` -> ``[E]``."""
        ctx.save_for_backward(x)
        ctx.graph = graph
        blocks = zip(graph.rows.split(EDGE_BLOCK), graph.indices.split(EDGE_BLOCK), strict=True)
        dots = [(x.index_select(0, i) * x.index_select(0, j)).sum(1) for i, j in blocks]
        return torch.cat(dots) if dots else x.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """``d/dx_i = sum_j g_ij x_j``, and the same along the reversed edges."""
        (x,) = ctx.saved_tensors
        graph = ctx.graph
        indptr, indices, order = graph.transposed()
        forward = _weighted_bag(graph.indptr, graph.indices, x, grad)
        return forward + _weighted_bag(indptr, indices, x, grad[order]), None


def _weighted_bag(indptr: Tensor, indices: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    if indices.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(indptr.numel() - 1, x.size(1))
    offsets = indptr.to(indices.dtype)
    result: Tensor = torch.embedding_bag(
        x.contiguous(), indices, offsets, False, 0, False, weight.contiguous(), True
    )[0]
    return result


def cosine(x: Tensor, graph: Graph) -> Tensor:
    """``cos(x_i, x_j)`` of every edge in CSR order, ``[E]``; 0 where a row is 0."""
    square = (x * x).sum(1)
    # torch's normalize divides by max(|x|, 1e-12); the guard keeps the root's gradient finite.
    # Not 1 / sqrt: torch's own root is not rounded as IEEE's, which is what lite has.
    inverse = torch.where(square > 0, square.clamp_min(1e-24).rsqrt(), 0.0)
    dots: Tensor = _EdgeDot.apply(x, graph)
    return dots * inverse.index_select(0, graph.rows) * inverse.index_select(0, graph.indices)
