"""Integers that lead into a table: refused where they lead out of it, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import NodeIndexError
from nodebits.core.outcomes import noted


def check_range(values: Tensor, bound: int, name: str) -> None:
    """Refuses integers outside ``[0, bound)``.

    Raises:
        NodeIndexError: Names the position, the value and the bound.
    """
    if values.numel() == 0 or noted(lambda: ((values < 0) | (values >= bound)).any()):
        return
    low, high = (int(v) for v in torch.aminmax(values))
    if low < 0 or high >= bound:
        at = int(((values < 0) | (values >= bound)).nonzero()[0])
        raise NodeIndexError(f"{name}[{at}] is {int(values[at])}: it must be in [0, {bound - 1}]")


def check_index(edge_index: Tensor, num_src: int, num_dst: int) -> None:
    """Refuses node indices outside the graph.

    Args:
        edge_index: int ``[2, E]``, sources then targets.
        num_src: Number of sources.
        num_dst: Number of targets.

    Raises:
        NodeIndexError: Names the position, the value and the bound.
    """
    if edge_index.numel() == 0 or noted(lambda: outside(edge_index, num_src, num_dst).any()):
        return
    for row, bound, what in ((0, num_src, "source"), (1, num_dst, "target")):
        low, high = (int(v) for v in torch.aminmax(edge_index[row]))
        if low < 0 or high >= bound:
            bad = (edge_index[row] < 0) | (edge_index[row] >= bound)
            at = int(bad.nonzero()[0])
            raise NodeIndexError(
                f"edge_index[{row}, {at}] is {int(edge_index[row, at])}: {what} indices must be in "
                f"[0, {bound - 1}] for {bound} nodes"
            )


def outside(edge_index: Tensor, num_src: int, num_dst: int) -> Tensor:
    """Which edges lead to no node, bool ``[E]``; see :func:`check_index`."""
    source, target = edge_index[0], edge_index[1]
    below = (source < 0) | (target < 0)
    return below | (source >= num_src) | (target >= num_dst)
