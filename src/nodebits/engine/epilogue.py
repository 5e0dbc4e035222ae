"""The epilogue in torch: differentiable, and for what was summed in float."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.ops.autograd import Rescale
from nodebits.ops.records import spread_heads


def rescale(
    acc: Tensor,
    col_scale: Tensor | None,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The differentiable epilogue.

    ``((acc - row_offset * col_offset) * col_scale) * row_scale + bias``, in this order.

    Args:
        acc: float32 ``[N, C]``.
        col_scale: ``[C]`` or ``[1]``, or None for 1.
        col_offset: ``[C]`` or ``[1]``, or None for no offset.
        row_offset: ``[N, H]``, H groups of columns; None for 1.
        row_scale: ``[N, H]`` or None.
        bias: ``[C]`` or None.
    """
    if col_scale is not None and acc.requires_grad:
        by_row, by_column = (row_offset, row_scale), (col_scale, col_offset, bias)
        if _fits(acc, by_row, by_column):
            made: Tensor = Rescale.apply(acc, col_scale, col_offset, row_offset, row_scale, bias)
            return made
    if col_offset is not None:
        if row_offset is None:
            acc = acc - col_offset
        else:
            acc = acc - spread_heads(row_offset, acc.size(1)) * col_offset
    if col_scale is not None:
        acc = acc * col_scale
    if row_scale is not None:
        acc = acc * spread_heads(row_scale, acc.size(1))
    return acc if bias is None else acc + bias


def _fits(
    acc: Tensor, by_row: tuple[Tensor | None, ...], by_column: tuple[Tensor | None, ...]
) -> bool:
    """Whether one kernel makes values and gradients; elsewhere torch's own operations do."""
    learned = any(t is not None and t.requires_grad for t in by_row)
    flat = all(t is None or t.dim() == 1 for t in by_column)
    kernel = acc.device.type in ("cpu", "cuda") and acc.dtype == torch.float32 and acc.dim() == 2
    return kernel and flat and not learned
