"""Codes at a step, zero point and top code of every row, and the gradients of all three.

The local error is what A2Q's widths and ranges learn from beside the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE


class RowFakeQuantize(torch.autograd.Function):
    """Codes of rows with a step, zero point and top code each, times a power of two per row."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        column: Tensor,
        step: Tensor,
        zero_point: Tensor,
        top: Tensor,
    ) -> Tensor:
        """``clamp(rne(x / (column * step) + zero_point), 0, top)``.

        Args:
            ctx: Autograd context.
            x: float32 ``[N, C]``.
            column: ``[C]`` or ``[1]``, the part of the scale that rows share.
            step: ``[N, 1]``.
            zero_point: ``[N, 1]``.
            top: ``[N, 1]``, ``2^b - 1``.
        """
        v = x / (column * step) + zero_point
        codes = torch.round(v).clamp_min(0).minimum(top)
        ctx.save_for_backward(v, column, step, zero_point, top)
        return codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range; outside it the end codes move with top."""
        v, column, step, zero_point, top = ctx.saved_tensors
        above = v > top
        inside = (v >= 0) & ~above
        passed = torch.where(inside, grad, 0.0)
        scale = column * step
        needs = ctx.needs_input_grad
        ratio = passed * (v - zero_point)
        return (
            passed / scale if needs[0] else None,
            -_to(column, ratio / column) if needs[1] else None,
            -(ratio / step).sum(1, keepdim=True) if needs[2] else None,
            passed.sum(1, keepdim=True) if needs[3] else None,
            torch.where(above, grad, 0.0).sum(1, keepdim=True) if needs[4] else None,
        )


def _to(column: Tensor, grad: Tensor) -> Tensor:
    return grad.sum(0) if column.numel() > 1 else grad.sum().view(1)


def local_error(x: Tensor, step: Tensor, zero_point: Tensor, top: Tensor) -> Tensor:
    """Mean over rows of ``mean_j |x_q - x|``, relative to the mean magnitude of ``x``.

    Its gradients (A2Q, local gradient): inside the range ``d x_q / d s = x_int - x / s``, outside
    ``d x_q / d s`` is the end code and ``d x_q / d b = s 2^b ln 2`` (through ``top``), each times
    ``sign(x_q - x) / F``. They are taken here, in one pass, so that autograd only sees vectors.
    """
    with torch.no_grad():
        ratio = x / step
        v = ratio + zero_point
        codes = torch.round(v).clamp_min(0).minimum(top)
        integer = codes - zero_point
        difference = integer - ratio  # in steps
        sign = difference.sign()
        above, below = v > top, v < 0
        norm = x.abs().mean().clamp_min(MIN_SCALE)
        share = 1.0 / (max(x.numel(), 1) * norm)
        to_step = (sign * torch.where(above | below, integer, difference)).sum(1, keepdim=True)
        to_top = (sign * above).sum(1, keepdim=True) * step
        to_zero = -(sign * (above | below)).sum(1, keepdim=True) * step
        value = (difference.abs() * step).sum() * share
        grads = to_step * share, to_top * share, to_zero * share
    total = value
    for tensor, grad in zip((step, top, zero_point), grads, strict=True):
        if tensor.requires_grad:
            total = total + ((tensor - tensor.detach()) * grad).sum()
    return total
