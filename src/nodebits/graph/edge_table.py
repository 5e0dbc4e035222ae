"""Rows of edges without those that are there twice: what a model of few types of edges reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

# As in csrc/run/distinct.h and csrc/plan/steps_distinct.cpp.
MOST_ROWS = 256
LEAST_SHARED = 4
# Spreads the bits of a row over those of a number.
_ODD = 0x27D4EB2F165667C5


class EdgeTable(NamedTuple):
    """Rows that edges have, and which one each has.

    Attributes:
        rows: float32 ``[M, D]``.
        places: int64 ``[E]``, the row of every edge in CSR order; None where they stand in it.
        sources: Makes the :class:`Graph` over these rows in place of nodes.
    """

    rows: Tensor
    places: Tensor | None
    sources: Callable[[], Any]


def distinct_rows(
    features: Tensor, perm: Tensor | None, ordered: bool, more: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that edges have, each once, in the order in which they come first.

    Rows that differ in a bit are not the same. Where there are more than :data:`MOST_ROWS` of them,
    or one for fewer than :data:`LEAST_SHARED` edges, they stay as they are. So they do where one is
    not finite: whoever refuses it says which edge it is.

    Args:
        features: float32 ``[R, D]``.
        perm: int64 ``[E]``, the row of every edge in CSR order; None where they stand in it.
        ordered: Whether rows that stay as they are come in CSR order, without ``more``.
        more: float32 ``[L, D]``, rows behind these, which stay as they are.

    Returns:
        The rows ``[M, D]``, and the row of every edge in CSR order, int64 and int32 ``[E]``.
    """
    behind = features[:0] if more is None else more
    if perm is None:
        perm = torch.arange(features.size(0) + behind.size(0), device=features.device)
    table = _table(features)
    if table is not None:
        last = torch.arange(behind.size(0), device=features.device) + table[0].size(0)
        rows, places = torch.cat([table[0], behind]), torch.cat([table[1], last])[perm]
    elif ordered:
        rows, places = features[perm], torch.arange(perm.numel(), device=perm.device)
    else:
        rows, places = torch.cat([features, behind]), perm.clone()
    return rows, places, places.int()


def _table(features: Tensor) -> tuple[Tensor, Tensor] | None:
    """The rows that differ, and which of them each one is; None where they stay as they are."""
    most = min(MOST_ROWS, features.size(0) // LEAST_SHARED)
    if most == 0 or features.size(1) == 0:
        return None
    bits = features.contiguous().view(torch.int32)
    # A number for each row is sorted a hundred times as fast as the rows themselves.
    factors = torch.arange(1, 2 * bits.size(1), 2, device=bits.device) * _ODD
    numbers = (bits.long() * factors).sum(1).unique(return_inverse=True)[1]
    made = _firsts(numbers, most)
    if made is not None and not torch.equal(bits, bits[made[0]][made[1]]):
        # Rows that differ have one number.
        made = _firsts(bits.unique(dim=0, return_inverse=True)[1], most)
    if made is None or not bool(features[made[0]].isfinite().all()):
        return None
    return features[made[0]], made[1]


def _firsts(numbers: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Where each number comes first, in that order, and its place there; None for too many."""
    count = int(numbers.max()) + 1
    if count > most:
        return None
    as_given = torch.arange(numbers.size(0), device=numbers.device)
    first = numbers.new_full((count,), numbers.size(0))
    first, order = first.scatter_reduce(0, numbers, as_given, "amin").sort()
    return first, order.argsort()[numbers]
