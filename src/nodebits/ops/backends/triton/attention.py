"""Attention between all rows of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.ops.backends.triton.kernels import attention
from nodebits.ops.backends.triton.launch import launch, sizes_of
from nodebits.ops.definitions.attention import GraphAttention, score_factor


def _keys_of(num_rows: int, batch: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """First key of every row, and the end of its keys, int64 ``[N]``."""
    if batch is None:
        none = torch.zeros(num_rows, dtype=torch.int64, device=like.device)
        return none, none + num_rows
    # Two searches, since torch's count of the graphs would wait for the device.
    return torch.searchsorted(batch, batch), torch.searchsorted(batch, batch, right=True)


def graph_attention(given: GraphAttention) -> Tensor:
    """See the definition. Scores are made twice: for the largest of a row, and for its sums."""
    query, key, value, batch, heads = given
    num_rows, num_cols = query.shape
    width = num_cols // heads
    out = torch.empty_like(query)
    sizes = sizes_of("attend", width)
    grid = -(-num_rows // sizes["ROWS"]), heads, -(-width // sizes["BLOCK"])
    launch(
        attention.attend, grid, query, query, key, value, *_keys_of(num_rows, batch, query), out,
        num_rows, num_cols, width, score_factor(width), **sizes,
    )  # fmt: skip
    return out
