"""Self loops without sizes that follow from values.

How many loops there are is a value. So none is taken away: it becomes an edge of the last node,
which is padding, and whose rows nobody reads. :mod:`nodebits.graph.loops` has the same of any size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.graph.loops import EDGE_INDEX, MATRIX


class NewLoops(NamedTuple):
    """What loops are added.

    Attributes:
        nodes: To give one each: all, the last of which is padding.
        fill: Weight of new ones.
        form: What the edges were made from.
    """

    nodes: int
    fill: float
    form: str = EDGE_INDEX


def looped(rows: Tensor, cols: Tensor, count: int, form: str = EDGE_INDEX) -> tuple[Tensor, Tensor]:
    """Edges, and behind them a loop of each of the first ``count`` nodes.

    Args:
        rows: int64 ``[E]``, targets.
        cols: int32 or int64 ``[E]``, sources.
        count: Nodes to give a loop: all, the last of which is padding.
        form: What the edges were made from.

    Returns:
        int64 ``[E + count]``, sources and targets.
    """
    loops = rows == cols
    if form == MATRIX:  # whose loops stay
        loops = torch.zeros_like(loops)
    nodes = torch.arange(count, device=rows.device)
    source = torch.cat([torch.where(loops, count - 1, cols.long()), nodes])
    return source, torch.cat([torch.where(loops, count - 1, rows), nodes])


def looped_weighted(
    rows: Tensor, cols: Tensor, weight: Tensor | None, about: NewLoops
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with weights, and all loops that are there go.

    Args:
        rows: int64 ``[E]``, targets.
        cols: int32 or int64 ``[E]``, sources.
        weight: float32 ``[E]``, or None for ones.
        about: The loops.

    Returns:
        int64 ``[E + count]``, sources and targets, and float32 weights.
    """
    count, fill, form = about
    # Unit weights of a torch.sparse matrix stay as they are, loops among them.
    kept = weight is None and fill == 1.0 and form == MATRIX
    source, target = looped(rows, cols, count, MATRIX if kept else EDGE_INDEX)
    loops = rows == cols
    old = torch.ones(rows.numel(), device=rows.device) if weight is None else weight
    new = old.new_full((count,), fill)
    if kept:
        return source, target, torch.cat([old, new])
    if form == EDGE_INDEX:  # the new one takes the weight of the last one
        place = torch.where(loops, torch.arange(rows.numel(), device=rows.device), -1)
        last = torch.full_like(target[:count], -1).scatter_reduce(0, rows, place, "amax")
        if rows.numel():
            new = torch.where(last >= 0, old.index_select(0, last.clamp_min(0)), new)
    elif form == MATRIX:  # it is added
        new = new.index_add(0, rows, torch.where(loops, old, 0.0))
    return source, target, torch.cat([torch.where(loops, 1.0, old), new])
