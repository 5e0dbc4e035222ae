"""The largest index of a tensor: looked up once per tensor, not once per kernel call.

Kernels read rows at the indices of a graph without asking. What they may read is compared with the
largest index, which is remembered for as long as the tensor lives and torch counts no change.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import NodeIndexError


class _Seen(NamedTuple):
    tensor: weakref.ref[Tensor]
    state: tuple[int, int, int]
    largest: int


_seen: dict[int, _Seen] = {}  # by identity of the tensor


def state_of(t: Tensor) -> tuple[int, int, int] | None:
    """What changes when torch writes to ``t``; None where torch does not count (inference mode)."""
    return None if t.is_inference() else (t._version, t.data_ptr(), t.numel())


def largest_index(indices: Tensor) -> int:
    """The largest of int32 ``indices`` read as unsigned, so that a negative one is too large.

    Returns:
        -1 for an empty tensor.
    """
    key, state = id(indices), state_of(indices)
    known = _seen.get(key)
    if known is not None and known.tensor() is indices and known.state == state:
        return known.largest
    largest = _largest(indices)
    if state is not None:

        def forget(_: Any) -> None:
            _seen.pop(key, None)

        _seen[key] = _Seen(weakref.ref(indices, forget), state, largest)
    return largest


def _largest(indices: Tensor) -> int:
    if indices.numel() == 0:
        return -1
    if indices.device.type == "cpu":
        # numpy looks without an operator of torch, which a capture of the forward would note.
        return int(indices.detach().numpy().view(np.uint32).max())
    low, high = (int(v) for v in torch.aminmax(indices))
    return high if low >= 0 else low + (1 << 32)


def check_within(indices: Tensor, limit: int, name: str, what: str) -> None:
    """Refuses indices that lead outside of a table.

    Args:
        indices: int32 ``[E]``.
        limit: Rows of the table.
        name: Of ``indices``, for the message.
        what: What has ``limit`` rows, for the message.

    Raises:
        NodeIndexError: Names the first bad index, where it stands, and the bound.
    """
    if largest_index(indices) < limit:
        return
    at = int(((indices < 0) | (indices >= limit)).nonzero()[0])
    raise NodeIndexError(
        f"{name}[{at}] is {int(indices[at])}, outside [0, {limit}): {what} has {limit} rows"
    )
