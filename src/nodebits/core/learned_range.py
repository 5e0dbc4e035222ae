"""A range as a factor of running extremes, and INT2 by truncation (SMP, section 2).

With ``[low, high]`` widened to contain 0 and ``span = (high - low) / (2^b - 1)`` the scale is
``factor * span``. The affine zero point ``-low / span`` does not depend on the factor, so the
gradient of a dequantized value ``(code - z) * s`` for the factor is ``span`` times LSQ's for the
scale: ``code - z - x / s`` inside the range, ``-z`` or ``2^b - 1 - z`` outside.

**BT** quantizes to 8 bits and snaps the code c to a multiple of 85 (255 = 3 * 85): the codes 0 to 3
of ``round(c / 85)``. Rounding twice is rounding once here, since 42.5 = 85 / 2 lies between two
8-bit codes and ties agree, so BT *is* a 2-bit code of scale ``85 s`` and zero point ``z / 85``,
which need not be whole: 0 has no exact level. **BT*** adds the rounded skewness of the tensor to
the 8-bit code before it snaps: an offset of ``skewness / 85`` where codes are made, not where they
are read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, max_code
from nodebits.core.errors import ConfigError
from nodebits.core.grid import constant_qparams, grid_qparams

FORMS = ("affine", "centered")
SNAPS = ("none", "bt", "bt_skew")
# 8-bit codes between two levels of the truncated forms.
SNAP_STEP = 85.0


def span_of(low: Tensor, high: Tensor, bits: int, form: str) -> tuple[Tensor, Tensor]:
    """Scale and level of code 0 of the whole range, for factor 1.

    Args:
        low: float32, any shape.
        high: float32, same shape.
        bits: 1 to 8.
        form: ``"affine"``: the range is widened to contain 0 and the zero point is whole.
            ``"centered"``: levels evenly around the middle.

    Returns:
        ``(span, center)``: the scale, and the value halfway between the end levels (0 in the
        affine form, whose zero point follows from ``low`` instead).

    Raises:
        ConfigError: On an unknown form.
    """
    if form not in FORMS:
        raise ConfigError(f"range form is {form!r}: use one of {', '.join(FORMS)}")
    if form == "affine":
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    span = (high - low) / max_code(bits)
    span = torch.where(span < MIN_SCALE, torch.ones_like(span), span)
    return span, torch.zeros_like(span) if form == "affine" else (low + high) / 2


def factor_qparams(
    factor: Tensor, low: Tensor, high: Tensor, center: Tensor, bits: int, form: str
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of a range that is ``factor`` times ``[low, high]``.

    Args:
        factor: float32, positive; carries the gradient.
        low: float32, lower extreme.
        high: float32, upper extreme.
        center: float32, where the levels lie around in the centered form (the running mean).
        bits: 1 to 8.
        form: See :func:`span_of`.
    """
    span, _ = span_of(low, high, bits, form)
    scale = (factor * span).clamp_min(MIN_SCALE)
    if form == "affine":
        zero_point = torch.round(-low.clamp(max=0.0) / span).clamp(0, max_code(bits))
        return scale, zero_point
    flat = (high - low) / max_code(bits) < MIN_SCALE
    at, level = constant_qparams(center)
    scale = torch.where(flat, at, scale)
    return scale, torch.where(flat, level, max_code(bits) / 2 - center / scale)


def snap_qparams(scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """2-bit scale and zero point of an 8-bit code that is snapped to multiples of 85."""
    return scale * SNAP_STEP, zero_point / SNAP_STEP


def skewness(x: Tensor) -> Tensor:
    """Third standardised moment of all values, float32 ``[1]``; 0 where they do not vary."""
    centred = x.detach().double() - x.detach().double().mean()
    deviation = centred.square().mean().sqrt()
    value = (centred**3).mean() / deviation.clamp_min(1e-12) ** 3
    return torch.where(deviation > 1e-12, value, torch.zeros_like(value)).float().view(1)


def initial_factor(x: Tensor, bits: int, axis: int, form: str, snap: str) -> Tensor:
    """Factor of least mean absolute error, on an even grid over (0, 1].

    Args:
        x: float32 ``[N, C]``, finite.
        bits: 1 to 8.
        axis: -1 or 1.
        form: See :func:`span_of`.
        snap: One of :data:`SNAPS`; then the error is that of the snapped code.

    Returns:
        float32 ``[1]`` or ``[C]``.
    """
    if snap != "none":
        return _snapped_factor(x, axis, skew=snap == "bt_skew")
    low, high = _extremes(x, axis)
    span, _ = span_of(low, high, bits, form)
    scale, _ = grid_qparams(x, bits, axis, form, "mae")
    return scale / span


def _extremes(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    if axis == -1:
        low, high = torch.aminmax(x)
        return low.view(1), high.view(1)
    return x.amin(0), x.amax(0)


def _snapped_factor(x: Tensor, axis: int, skew: bool) -> Tensor:
    low, high = _extremes(x, axis)
    shift = torch.round(skewness(x)) / SNAP_STEP if skew else x.new_zeros(1)
    best, error = torch.ones_like(low), torch.full_like(low, torch.inf)
    for step in range(1, 51):
        factor = torch.full_like(low, step / 50)
        scale, zero = snap_qparams(*factor_qparams(factor, low, high, low, 8, "affine"))
        codes = torch.round(x / scale + (zero + shift)).clamp(0, 3)
        cost = ((codes - zero) * scale - x).abs()
        cost = cost.mean().view(1) if axis == -1 else cost.mean(0)
        best, error = torch.where(cost < error, factor, best), torch.minimum(cost, error)
    return best
