"""The scale of a row from its own values, which no other row has a part in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import max_code, symmetric_qparams, unsigned_qparams

# Up to so many bits a row's largest value may leave most of the others no code but zero's.
TRIMMED_BITS = 2
# How often a range is cut at most, and to what share of itself.
_TRIMS, _SHARE = 10, 0.8


class OwnScale(NamedTuple):
    """How rows that bring their own scale become codes.

    Attributes:
        bits: 1 to 8.
        signed: Whether codes stand for both signs, around ``2^(bits-1)``.
        trim: Whether a row's range is cut, by fifths, until half of its values that are not zero
            have other codes than zero. Rows of zeros and ones keep theirs, and are exact.
    """

    bits: int
    signed: bool
    trim: bool = False

    @classmethod
    def usual(cls, bits: int, signed: bool) -> OwnScale:
        """Of new models and files: ranges of few bits are cut."""
        return cls(bits, signed, bits <= TRIMMED_BITS)

    @property
    def described(self) -> str:
        """What is said of it behind its width."""
        return (", signed" if self.signed else "") + (", of a cut range" if self.trim else "")

    @property
    def zero_point(self) -> float:
        """That of all rows."""
        return float(1 << (self.bits - 1)) if self.signed else 0.0

    @property
    def trims(self) -> tuple[bool, ...]:
        """Further arguments of a plan's steps: none where no range is cut, as in older plans."""
        return (True,) if self.trim else ()

    def extent(self, x: Tensor) -> Tensor:
        """The largest value of every row that codes stand for, float32 ``[N]``.

        Counts alone decide where it is cut, so that the order of values does not matter.

        Args:
            x: float32 ``[N, C]``.
        """
        if x.size(1) == 0:
            return x.new_zeros(x.size(0))
        size = x.abs() if self.signed else x
        extent = size.amax(1).clamp_min(0)
        if not self.trim:
            return extent
        top = max_code(self.bits)
        levels = max(top - (1 << (self.bits - 1)), 1) if self.signed else top
        there = (size > 0).sum(1)
        for _ in range(_TRIMS):
            kept = (size > (extent / levels * 0.5).view(-1, 1)).sum(1)
            extent = torch.where(2 * kept >= there, extent, extent * _SHARE)
        return extent

    def scale(self, x: Tensor) -> Tensor:
        """Of every row, float32 ``[N]``.

        Args:
            x: float32 ``[N, C]``.
        """
        qparams = symmetric_qparams if self.signed else unsigned_qparams
        return qparams(self.extent(x), self.bits)[0]
