"""Rows of edges without those that are there twice: what a model of few types of edges reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

# As in csrc/run/distinct.h and csrc/plan/steps_distinct.cpp.
MOST_ROWS = 256
LEAST_SHARED = 4


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
    as_given = torch.arange(features.size(0), device=features.device)
    behind = features[:0] if more is None else more
    if perm is None:
        perm = torch.arange(features.size(0) + behind.size(0), device=features.device)
    table = _table(features, as_given)
    if table is not None:
        last = torch.arange(behind.size(0), device=features.device) + table[0].size(0)
        rows, places = torch.cat([table[0], behind]), torch.cat([table[1], last])[perm]
    elif ordered:
        rows, places = features[perm], torch.arange(perm.numel(), device=perm.device)
    else:
        rows, places = torch.cat([features, behind]), perm.clone()
    return rows, places, places.int()


def _table(features: Tensor, as_given: Tensor) -> tuple[Tensor, Tensor] | None:
    most = min(MOST_ROWS, features.size(0) // LEAST_SHARED)
    if most == 0 or features.size(1) == 0:
        return None
    bits = features.contiguous().view(torch.int32)
    # As a rule all rows differ: some tell, and not all of them have to be sorted.
    if bits[: 2 * most].unique(dim=0).size(0) > most:
        return None
    found, numbers = bits.unique(dim=0, return_inverse=True)
    if found.size(0) > most:
        return None
    first = numbers.new_full((found.size(0),), features.size(0))
    first, order = first.scatter_reduce(0, numbers, as_given, "amin").sort()
    rows = features[first]
    return (rows, order.argsort()[numbers]) if bool(rows.isfinite().all()) else None
