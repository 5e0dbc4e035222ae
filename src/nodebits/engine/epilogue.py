"""The epilogue in torch: differentiable, and for what was summed in float."""

from __future__ import annotations

from torch import Tensor


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
    if col_offset is not None:
        if row_offset is None:
            acc = acc - col_offset
        else:
            acc = acc - _spread(row_offset, acc.size(1)) * col_offset
    if col_scale is not None:
        acc = acc * col_scale
    if row_scale is not None:
        acc = acc * _spread(row_scale, acc.size(1))
    return acc if bias is None else acc + bias


def _spread(per_head: Tensor, num_cols: int) -> Tensor:
    """``[N, H]`` -> ``[N, C]`` (or ``[N, 1]``, which broadcasts)."""
    if per_head.size(1) == 1:
        return per_head
    return per_head.repeat_interleave(num_cols // per_head.size(1), dim=1)
