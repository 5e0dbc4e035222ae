"""The largest index of a tensor: looked up once per tensor, not once per kernel call.

Kernels read rows at the indices of a graph without asking. What they may read is compared with the
largest index, which is remembered.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nodebits.core.errors import NodeIndexError
from nodebits.core.outcomes import noted
from nodebits.core.proven import INDICES_BELOW, recall, remember


def largest_index(indices: Tensor) -> int:
    """The largest of int32 ``indices`` read as unsigned, so that a negative one is too large.

    Returns:
        -1 for an empty tensor.
    """
    known = recall("largest", indices)
    if known is None:
        known = _largest(indices)
        remember("largest", known, indices)
    return int(known)


def _largest(indices: Tensor) -> int:
    if indices.numel() == 0:
        return -1
    if indices.device.type == "cpu":
        # numpy looks without an operator of torch, which a recorded forward would note.
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
    known = recall("largest", indices)
    if known is None:
        below = recall(INDICES_BELOW, indices)
        if below is not None and below <= limit:
            return
        if noted(lambda: ((indices < 0) | (indices >= limit)).any()):
            return
        known = largest_index(indices)
    if known < limit:
        return
    at = int(((indices < 0) | (indices >= limit)).nonzero()[0])
    raise NodeIndexError(
        f"{name}[{at}] is {int(indices[at])}, outside [0, {limit}): {what} has {limit} rows"
    )
