"""The largest or smallest of a row's neighbours, with gradients as PyG's maximum has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Edges whose rows are gathered at once.
EDGE_BLOCK = 65_536


def _blocks(graph: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets and sources of some edges after some."""
    return zip(graph.rows.split(EDGE_BLOCK), graph.indices.split(EDGE_BLOCK), strict=True)


class NeighborExtreme(torch.autograd.Function):
    """``out[i] = max over the edges of row i of x[source]``, 0 for a row without any.

    The gradient of an extreme is shared by all edges that have it, as torch's ``amax`` does.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Any, smallest: bool) -> Tensor:
        """``x`` float32 ``[num_src, C]`` -> ``[num_dst, C]``."""
        end = float("inf") if smallest else -float("inf")
        out = x.new_full((graph.num_dst, x.size(1)), end)
        for rows, sources in _blocks(graph):
            values = x.index_select(0, sources)
            index = rows.view(-1, 1).expand_as(values)
            out.scatter_reduce_(0, index, values, "amin" if smallest else "amax")
        out.masked_fill_((graph.degree == 0).view(-1, 1), 0.0)
        ctx.save_for_backward(x, out)
        ctx.graph = graph
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """An equal part of a target's gradient for every edge that has its value."""
        x, out = ctx.saved_tensors
        count = torch.zeros_like(out)
        for rows, sources in _blocks(ctx.graph):
            same = x.index_select(0, sources) == out.index_select(0, rows)
            count.index_add_(0, rows, same.to(out.dtype))
        share = grad / count.clamp_min(1.0)
        made = torch.zeros_like(x)
        for rows, sources in _blocks(ctx.graph):
            same = x.index_select(0, sources) == out.index_select(0, rows)
            made.index_add_(0, sources, share.index_select(0, rows) * same)
        return made, None, None


def neighbor_extreme(x: Tensor, graph: Any, smallest: bool) -> Tensor:
    """Differentiable extreme over neighbours.

    Args:
        x: float32 ``[num_src, C]``.
        graph: Object with ``indices``, ``rows``, ``degree`` and ``num_dst``.
        smallest: Whether the smallest is taken.

    Returns:
        float32 ``[num_dst, C]``.
    """
    made: Tensor = NeighborExtreme.apply(x, graph, smallest)
    return made
