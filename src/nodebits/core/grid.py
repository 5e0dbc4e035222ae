"""Range initialisation by a grid: the scale of least quantization error.

Outliers cost resolution; at 4 bits and below, clipping them is what makes initial ranges usable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nodebits.core.affine import (
    MIN_SCALE,
    affine_qparams,
    max_code,
    symmetric_qparams,
    unsigned_qparams,
)
from nodebits.core.errors import ConfigError
from nodebits.core.sample import strided_sample

GRID_SAMPLE = 131_072
STEPS = 40
FORMS = ("affine", "symmetric", "unsigned", "centered")


def grid_qparams(
    x: Tensor, bits: int, axis: int, form: str, error: str = "mse"
) -> tuple[Tensor, Tensor]:
    """Tries ``STEPS`` equal fractions of the extremes and keeps the one of least error.

    Args:
        x: float32 ``[N, C]``, finite.
        bits: 1 to 8.
        axis: -1 one range, 0 one per row, 1 one per column.
        form: ``"affine"`` (integer zero point), ``"symmetric"``, ``"unsigned"``, or
            ``"centered"``: levels evenly around the mean, with a real zero point (no level need be
            0).
        error: ``"mse"`` or ``"mae"``.

    Returns:
        ``(scale, zero_point)``, float32, ``[1]``, ``[N]`` or ``[C]``.

    Raises:
        ConfigError: On an unknown form or error.
    """
    if form not in FORMS:
        raise ConfigError(f"range form is {form!r}: use one of {', '.join(FORMS)}")
    if error not in ("mse", "mae"):
        raise ConfigError(f"grid error is {error!r}: use 'mse' or 'mae'")
    lines = strided_sample(x.detach(), axis, GRID_SAMPLE)
    low, high = (v.unsqueeze(1) for v in torch.aminmax(lines, dim=1))
    center = lines.mean(1, keepdim=True) if form == "centered" else None
    best = torch.full_like(low, math.inf)
    best_scale, best_zero = torch.ones_like(low), torch.zeros_like(low)
    # Fresh memory at every step would cost several times what the arithmetic does.
    scratch = torch.empty_like(lines)
    for step in range(1, STEPS + 1):
        scale, zero_point = _candidate(low, high, center, step / STEPS, bits, form)
        torch.div(lines, scale, out=scratch)
        scratch.add_(zero_point).round_().clamp_(0, max_code(bits))
        scratch.sub_(zero_point).mul_(scale).sub_(lines)
        cost = scratch.square_() if error == "mse" else scratch.abs_()
        cost = cost.mean(1, keepdim=True)
        better = cost < best
        best = torch.where(better, cost, best)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
    return best_scale.view(-1), best_zero.view(-1)


def _candidate(
    low: Tensor, high: Tensor, center: Tensor | None, fraction: float, bits: int, form: str
) -> tuple[Tensor, Tensor]:
    if form == "affine":
        return affine_qparams(low * fraction, high * fraction, bits)
    if form == "unsigned":
        return unsigned_qparams(high.clamp_min(0) * fraction, bits)
    if form == "symmetric":
        return symmetric_qparams(torch.maximum(low.abs(), high.abs()) * fraction, bits)
    qmax = max_code(bits)
    scale = (high - low) * fraction / qmax
    center = torch.zeros_like(scale) if center is None else center
    flat = scale < MIN_SCALE
    at, level = constant_qparams(low)
    scale = torch.where(flat, at, scale)
    return scale, torch.where(flat, level, qmax / 2 - center / scale)


def constant_qparams(value: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which a constant is exact at any width: code 1 or 0 is its level.

    Args:
        value: float32, any shape.
    """
    size = value.abs()
    scale = torch.where(size < MIN_SCALE, torch.ones_like(size), size)
    return scale, (value < 0).to(value.dtype)
