"""Range initialisation by a grid: the scale of least quantization error.

Outliers cost resolution; at 4 bits and below, clipping them is what makes initial ranges usable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
# Where tails are counted, so many values at each end of a line are: an even sample of a line whose
# largest values are few says nothing of what clipping them costs.
TAIL = 64
# Where few values share a scale, one that is somewhat larger than the smallest that holds them all
# may happen to fit them much better.
WIDEST = 0.25
# Values that torch sums on one thread, whatever their number.
_AT_ONCE = 32_767
FORMS = ("affine", "symmetric", "unsigned", "centered")


def grid_qparams(
    x: Tensor,
    bits: int,
    axis: int,
    form: str,
    error: str = "mse",
    *,
    wider: int = 0,
    tails: bool = False,
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
        wider: How many ranges that reach beyond the extremes, by up to ``WIDEST``, are tried too.
        tails: Whether the extremes are those of all values, and the ``TAIL`` largest and smallest
            of a line count one by one, where the others are a sample.

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
    share: Tensor | None = None
    if tails and lines.numel() < x.numel():
        lines, share = _with_tails(x.detach(), axis, lines)
    low, high = (v.unsqueeze(1) for v in torch.aminmax(lines, dim=1))
    center = lines.mean(1, keepdim=True) if form == "centered" else None
    best = torch.full_like(low, math.inf)
    best_scale, best_zero = torch.ones_like(low), torch.zeros_like(low)
    work: Tensor | None = None  # fresh memory every time would cost more than the arithmetic
    for fractions in _fractions(lines, wider):
        scale, zero_point = _candidate(low, high, center, fractions, bits, form)
        if work is None or work.size(0) != fractions.size(0):
            work = lines / scale
        else:
            torch.div(lines, scale, out=work)
        work.add_(zero_point).round_().clamp_(0, max_code(bits))
        work.sub_(zero_point).mul_(scale).sub_(lines)
        work = work.square_() if error == "mse" else work.abs_()
        work = work if share is None else work.mul_(share)
        cost = work.mean(2, keepdim=True)
        cost = torch.where(cost < math.inf, cost, math.inf)  # NaN is the least for argmin
        first = cost.argmin(0, keepdim=True)
        least = cost.gather(0, first).squeeze(0)
        better = least < best
        best = torch.where(better, least, best)
        best_scale = torch.where(better, scale.gather(0, first).squeeze(0), best_scale)
        best_zero = torch.where(better, zero_point.gather(0, first).squeeze(0), best_zero)
    return best_scale.view(-1), best_zero.view(-1)


def _with_tails(x: Tensor, axis: int, sample: Tensor) -> tuple[Tensor, Tensor]:
    """A sample and the ends of its lines, with how many values of a line each stands for.

    Args:
        x: Of which the sample is.
        axis: As in :func:`grid_qparams`.
        sample: ``[L, n]``.
    """
    lines = x.reshape(1, -1) if axis == -1 else x if axis == 0 else x.t()
    top, bottom = lines.topk(TAIL, 1).values, lines.topk(TAIL, 1, largest=False).values
    inside = (sample < top[:, -1:]) & (sample > bottom[:, -1:])
    body = (lines.size(1) - 2 * TAIL) / inside.sum(1, keepdim=True).clamp_min(1)
    one = torch.ones_like(top)
    return torch.cat([sample, top, bottom], 1), torch.cat([inside * body, one, one], 1)


def _fractions(lines: Tensor, wider: int) -> Sequence[Tensor]:
    """The fractions that are tried, ``[k, 1, 1]``: so many at once as one thread sums up.

    Where several share a sum, its order would depend on how many are tried at once.
    """
    tried = [step / STEPS for step in range(1, STEPS + 1)]
    tried += [1 + WIDEST * step / wider for step in range(1, wider + 1)]
    steps = torch.tensor(tried, device=lines.device)
    found: Sequence[Tensor] = steps.view(-1, 1, 1).split(max(_AT_ONCE // max(lines.numel(), 1), 1))
    return found


def _candidate(
    low: Tensor, high: Tensor, center: Tensor | None, fraction: Tensor, bits: int, form: str
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
