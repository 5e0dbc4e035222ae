"""Affine quantization: the one formula that every quantizer and kernel follows.

``u = clamp(rne(x / scale + zero_point), 0, 2**bits - 1)`` and ``x ~ (u - zero_point) * scale``.

``rne`` rounds halves to even (``torch.round``); the zero point is added before rounding; the
division is a true division. The zero point is a float32: ``2**(bits-1)`` for symmetric ranges, 0
for non-negative ones, an integer for affine observers, any real where it is learned.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import BitwidthError

# Below the smallest normal float32 a scale would make x / scale overflow for ordinary x.
MIN_SCALE = 2.0**-100


class Codes(NamedTuple):
    """Integer codes with what they stand for: ``(codes - zero_point) * scale``.

    Attributes:
        codes: float32 ``[N, C]``; integers in ``[0, 2**bits - 1]``, except in rows that a method
            protects, which hold ``x / scale + zero_point`` unrounded.
        scale: float32, ``[1]`` (per tensor), ``[C]`` (per column) or ``[N, 1]`` (per row).
        zero_point: float32, shaped like ``scale`` or ``[1]``.
        bits: Width of the codes; None where the tensor stays in float (scale 1, zero point 0).
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int | None

    def dequantize(self) -> Tensor:
        """Returns the float32 ``[N, C]`` values."""
        return (self.codes - self.zero_point) * self.scale

    def centred(self) -> Tensor:
        """Codes minus zero point; the values themselves where the tensor stays in float."""
        return self.codes if self.bits is None else self.codes - self.zero_point

    def float_codes(self) -> Tensor:
        """The codes as float32; the values themselves where the tensor stays in float."""
        return self.codes

    def aligned(self) -> Codes:
        """The codes as they are summed: themselves."""
        return self

    def unscaled(self) -> Codes:
        """These codes with a scale of 1, for whoever accounts for the scales elsewhere."""
        return self._replace(scale=self.scale.new_ones(1))

    def taken(self, index: Tensor, begin: int, end: int) -> None:
        """None: all rows are decoded, so that gradients have one way."""

    def block(self, begin: int, end: int) -> None:
        """Likewise."""

    def summands(self) -> None:
        """None: codes of training are not packed."""

    @property
    def num_cols(self) -> int:
        """C."""
        return self.codes.size(1)

    @property
    def is_float(self) -> bool:
        """Whether these are no codes."""
        return self.bits is None

    @property
    def is_plain(self) -> bool:
        """Whether all rows have one scale and zero point, or one per column."""
        return self.scale.dim() < 2 and self.zero_point.dim() < 2

    @property
    def by_row(self) -> bool:
        """Whether every row has a scale."""
        return self.scale.dim() == 2


def check_bits(bits: int, where: str = "bits") -> int:
    """Returns ``bits`` if it is an integer from 1 to 8.

    Raises:
        BitwidthError: Otherwise; the message names ``where``.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise BitwidthError(
            f"{where} is {bits!r}: a bitwidth is an integer from 1 to 8 (in a configuration, 32 "
            "leaves the tensor in float)"
        )
    return bits


def max_code(bits: int) -> int:
    """Largest unsigned code of ``bits`` bits."""
    return (1 << bits) - 1


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Rounds ``x`` to codes.

    Args:
        x: float32, any shape.
        scale: float32, broadcastable to ``x``, positive.
        zero_point: float32, broadcastable to ``x``.
        bits: 1 to 8.

    Returns:
        float32 tensor of integers in ``[0, 2**bits - 1]``, shaped like ``x``.
    """
    return torch.round(x / scale + zero_point).clamp(0, max_code(bits))


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Inverse of :func:`quantize` up to rounding: ``(codes - zero_point) * scale``."""
    return (codes - zero_point) * scale


def affine_qparams(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of the range ``[low, high]``, widened to contain 0.

    An empty range (``low == high == 0``) gets scale 1 and zero point 0, so a constant-zero tensor
    is exact.

    Args:
        low: float32, any shape.
        high: float32, same shape, ``>= low``.
        bits: 1 to 8.

    Returns:
        ``(scale, zero_point)``, float32, shaped like ``low`` (Degree-Quant, section 3: affine).
    """
    low = low.clamp(max=0.0)
    high = high.clamp(min=0.0)
    qmax = max_code(bits)
    span = high - low
    # A span beyond float32 is still a finite scale.
    scale = torch.where(span.isinf(), high / qmax - low / qmax, span / qmax)
    empty = scale < MIN_SCALE
    scale = torch.where(empty, torch.ones_like(scale), scale)
    zero_point = torch.round(-low / scale).clamp(0, qmax)
    return scale, torch.where(empty, torch.zeros_like(zero_point), zero_point)


def symmetric_qparams(extent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point ``2**(bits-1)`` of the range ``[-extent, extent]``.

    The largest positive code is one step short of the negative one, so the scale is chosen for the
    positive end (``extent`` is representable; at one bit the levels are ``-scale`` and 0).
    """
    positive = max(max_code(bits) - (1 << (bits - 1)), 1)
    scale = extent / positive
    scale = torch.where(scale < MIN_SCALE, torch.ones_like(scale), scale)
    return scale, torch.full_like(scale, float(1 << (bits - 1)))


def unsigned_qparams(high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point 0 of the range ``[0, high]``."""
    scale = high / max_code(bits)
    scale = torch.where(scale < MIN_SCALE, torch.ones_like(scale), scale)
    return scale, torch.zeros_like(scale)
