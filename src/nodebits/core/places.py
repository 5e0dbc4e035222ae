"""Where rows of several widths stand: every row has a place of its own, or some stay unwritten.

Looked at once per tensor, like the largest index of a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nodebits.core.errors import BitwidthError, NodeIndexError, ShapeError
from nodebits.core.indices import check_within
from nodebits.core.proven import recall, remember


def _values(t: Tensor) -> Any:
    """As numpy, whose looking a recorded forward does not note, unlike torch's."""
    return t.detach().cpu().numpy()


def check_order(order: Tensor) -> None:
    """Refuses an ``order`` that is no permutation: rows without an entry would stay unwritten.

    Args:
        order: int32 ``[N]``.

    Raises:
        NodeIndexError: If an entry is outside ``[0, N)``; the message names it.
        ShapeError: If one stands there twice.
    """
    check_within(order, order.numel(), "order", "the matrix")
    if recall("permutation", order) is None:
        _refuse_twice(_values(order), order.numel(), "order")
        remember("permutation", True, order)


def check_places(widths: Tensor, position: Tensor) -> Sequence[int]:
    """Checks that every row has a place of its own in the bucket of its width.

    Args:
        widths: uint8 ``[N]``.
        position: int32 ``[N]``.

    Returns:
        Rows of each width 1 to 8.

    Raises:
        BitwidthError: If a width is not 1 to 8.
        NodeIndexError: If a position is outside of its bucket.
        ShapeError: If two rows have one place.
    """
    known: Sequence[int] | None = recall("places", widths, position)
    if known is None:
        known = _places(_values(widths), _values(position))
        remember("places", known, widths, position)
    return known


def _places(widths: Any, position: Any) -> Sequence[int]:
    _check_widths(widths)
    counts = np.bincount(widths, minlength=9)
    outside = (position < 0) | (position >= counts[widths])
    if outside.any():
        at = int(outside.argmax())
        raise NodeIndexError(
            f"position[{at}] is {position[at]}: {counts[widths[at]]} rows have {widths[at]} bits"
        )
    starts = counts.cumsum() - counts
    _refuse_twice(starts[widths] + position, widths.size, "position")
    return tuple(int(n) for n in counts[1:])


def _refuse_twice(values: Any, size: int, name: str) -> None:
    """Raises ShapeError unless all of ``[0, size)`` occur in as many values."""
    count = np.bincount(values, minlength=size)
    if (count != 1).any():
        at = int(np.flatnonzero(count[values] > 1)[0])
        raise ShapeError(f"{name}[{at}] is the place of another row as well: each needs its own")


def check_shifts(widths: Tensor, shift: Tensor) -> None:
    """Checks that the shifted code of every row fits a byte.

    Args:
        widths: uint8 ``[N]``.
        shift: uint8 ``[N]``.

    Raises:
        BitwidthError: If a width is not 1 to 8.
        ShapeError: If a width and its shift are more than 8 in all.
    """
    if recall("shifts", widths, shift) is not None:
        return
    wide = _values(widths)
    _check_widths(wide)
    _check_sums(wide, _values(shift))
    remember("shifts", True, widths, shift)


def check_bucket_shifts(order: Tensor, counts: Sequence[int], shift: Tensor) -> None:
    """:func:`check_shifts` where the widths are those of buckets.

    Args:
        order: int32 ``[N]``, a permutation.
        counts: Rows of each width 1 to 8, N in all.
        shift: uint8 ``[N]``.

    Raises:
        ShapeError: If a width and its shift are more than 8 in all.
    """
    if recall("bucket shifts", order, shift) == tuple(counts):
        return
    wide = np.empty(order.numel(), dtype=np.uint8)
    wide[_values(order)] = np.repeat(np.arange(1, 9, dtype=np.uint8), list(counts))
    _check_sums(wide, _values(shift))
    remember("bucket shifts", tuple(counts), order, shift)


def _check_sums(widths: Any, shift: Any) -> None:
    outside = shift > 8 - widths
    if outside.any():
        at = int(outside.argmax())
        raise ShapeError(
            f"shift[{at}] is {shift[at]} for a code of {widths[at]} bits: width + shift is at "
            "most 8"
        )


def _check_widths(widths: Any) -> None:
    bad = (widths < 1) | (widths > 8)
    if bad.any():
        at = int(bad.argmax())
        raise BitwidthError(f"widths[{at}] is {widths[at]}: a bitwidth is 1 to 8")
