"""A self loop on every node, as PyG adds it, in lists of edges."""

from __future__ import annotations

import torch
from torch import Tensor

# Adjacency forms in which PyG's layers treat self loops and values differently.
EDGE_INDEX, MATRIX, SPARSE_TENSOR = "edge_index", "torch.sparse", "SparseTensor"


def looped(
    rows: Tensor, cols: Tensor, weight: Tensor | None, form: str, count: int, fill: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Edges with the loops of the first ``count`` nodes behind them.

    Args:
        rows: int64 ``[E]``, targets.
        cols: int64 ``[E]``, sources.
        weight: float ``[E]`` or None.
        form: What the edges were made from, see :meth:`nodebits.graph.Graph.with_self_loops`.
        count: Nodes to give a loop.
        fill: Weight of new loops.

    Returns:
        The same three, longer.
    """
    loops = rows == cols
    nodes = torch.arange(count, device=rows.device)
    unit = weight is None and fill == 1.0
    if unit and form == MATRIX:
        loops = torch.zeros_like(loops)
    keep = ~loops
    new_rows = torch.cat([rows[keep], nodes])
    new_cols = torch.cat([cols[keep], nodes])
    if unit:
        return new_rows, new_cols, None
    old = torch.ones(rows.numel(), device=rows.device) if weight is None else weight
    new = torch.full((count,), fill, device=rows.device, dtype=old.dtype)
    at = rows[loops]
    inside = at < count
    if form == EDGE_INDEX:
        new = new.index_put((at[inside],), old[loops][inside])
    elif form == MATRIX:
        new = new.index_add(0, at[inside], old[loops][inside])
    return new_rows, new_cols, torch.cat([old[keep], new])


def placed(
    rows: Tensor, cols: Tensor, given: Tensor | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges without their loops, those of the first ``count`` nodes behind them, and their places.

    Args:
        rows: int64 ``[E]``, targets.
        cols: int64 ``[E]``, sources.
        given: int64 ``[E]``, the number of every edge as it was given; None for its place.
        count: Nodes to give a loop.

    Returns:
        Targets, sources, and which row of features is whose: ``E + i`` for the loop of node i.
    """
    edges = rows.numel()
    nodes = torch.arange(count, device=rows.device)
    keep = rows != cols
    numbers = torch.arange(edges, device=rows.device) if given is None else given
    return (
        torch.cat([rows[keep], nodes]),
        torch.cat([cols[keep], nodes]),
        torch.cat([numbers[keep], nodes + edges]),
    )
