"""Attention between all rows of a graph, in float32 and in a stated order."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import GraphError, ShapeError
from nodebits.core.outcomes import noted
from nodebits.ops import checks
from nodebits.ops.definitions.edges import exp_nonpositive
from nodebits.ops.operator import Result, operator

# Scores held at once.
_MOST_SCORES = 1 << 24


def score_factor(width: int) -> float:
    """What a product of that many columns is multiplied by."""
    return 1.0 / math.sqrt(width) if width else 1.0


class GraphAttention(NamedTuple):
    """Softmax attention of every row to the rows of its graph, head by head.

    ``softmax_j(q_i k_j / sqrt(width)) v_j``. Products over columns and sums over keys are added in
    their order, and the exponential is :func:`exp_nonpositive`: the bits do not depend on what else
    is in the batch. No matrix of all pairs of rows exists.

    Args:
        query: float32 ``[N, heads * width]``.
        key: Likewise.
        value: Likewise.
        batch: int64 ``[N]``, ascending, the graph of every row; None for one graph.
        heads: Number of heads.

    Returns:
        float32 ``[N, heads * width]``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    batch: Tensor | None
    heads: int

    def checked(self) -> GraphAttention:
        rows = [
            checks.tensor(t, name, torch.float32, 2)
            for t, name in zip(self[:3], self._fields[:3], strict=True)
        ]
        if any(t.shape != rows[0].shape for t in rows):
            raise ShapeError(f"query, key and value are {[list(t.shape) for t in rows]}: not alike")
        if self.heads < 1 or rows[0].size(1) % self.heads:
            raise ShapeError(f"heads is {self.heads}: it must divide {rows[0].size(1)} columns")
        batch = self.batch
        if batch is not None:
            batch = checks.of_rows(batch, "batch", torch.int64, rows[0].size(0))
            below = batch.diff() < 0
            falls = below[:0] if noted(below.any) else below.nonzero()
            if falls.numel():
                raise GraphError(
                    f"batch falls at node {int(falls[0]) + 1}: the nodes of a graph must follow "
                    "each other, as PyG's DataLoader puts them"
                )
        return GraphAttention(rows[0], rows[1], rows[2], batch, self.heads)

    def results(self) -> Result:
        return Result(tuple(self.query.shape), torch.float32)

    def compute(self) -> Tensor:
        query, key, value, batch, heads = self
        num_rows, columns = query.shape
        if batch is None:
            counts = [num_rows]
        else:
            counts = torch.unique_consecutive(batch, return_counts=True)[1].tolist()
        out = torch.empty_like(query)
        # [heads, rows, width]
        q, k, v = (
            t.view(num_rows, heads, columns // heads).transpose(0, 1) for t in (query, key, value)
        )
        made = out.view(num_rows, heads, columns // heads).transpose(0, 1)
        begin = 0
        for count in counts:
            end = begin + count
            step = max(1, _MOST_SCORES // max(1, heads * count))
            for first in range(begin, end, step):
                last = min(first + step, end)
                made[:, first:last] = _attended(q[:, first:last], k[:, begin:end], v[:, begin:end])
            begin = end
        return out


graph_attention = operator(GraphAttention)


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rows ``[heads, L, width]`` that look at ``[heads, S, width]``."""
    width = q.size(2)
    scores = q.new_zeros(q.size(0), q.size(1), k.size(1))
    for column in range(width):
        scores = scores + q[:, :, column, None] * k[:, None, :, column]
    scores = scores * score_factor(width)
    known = scores.masked_fill(scores.isnan(), -torch.inf)
    weights = exp_nonpositive(scores - known.amax(2, keepdim=True))
    total, made = weights.new_zeros(*weights.shape[:2], 1), torch.zeros_like(q)
    for source in range(k.size(1)):
        weight = weights[:, :, source, None]
        total = total + weight
        made = made + weight * v[:, None, source]
    return made / total
