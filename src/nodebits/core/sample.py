"""Even samples of large tensors, for statistics that need not read every value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nodebits.core.distributed import world_size


def strided_sample(x: Tensor, axis: int, sample: int) -> Tensor:
    """At most about ``sample`` values of ``x``, evenly spread, from a random start.

    Args:
        x: ``[N, C]``.
        axis: -1 samples values, 0 columns of every row, 1 rows of every column.
        sample: Number of values wanted; each row or column keeps at least 1,024 (or all).

    Returns:
        ``[1, n]`` for axis -1, ``[N, n]`` for axis 0, ``[C, n]`` for axis 1.
    """
    lines = x.reshape(1, -1) if axis == -1 else x if axis == 0 else x.t()
    wanted = max(sample // max(lines.size(0), 1), 1024)
    stride = max(lines.size(1) // wanted, 1)
    if axis == -1 and stride > 1:
        # An odd number that shares no factor with the row length visits every column.
        stride |= 1
        while math.gcd(stride, x.size(1)) > 1:
            stride += 2
    start = 0
    if stride > 1:
        # Ranks draw different numbers, and must read the same sample.
        start = stride // 2 if world_size() > 1 else int(torch.randint(stride, (1,), device="cpu"))
    return lines[:, start::stride]
