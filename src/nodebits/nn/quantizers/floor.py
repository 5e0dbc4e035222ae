"""Flooring quantizer: SGQuant's published one, whose values are the lower ends of their cells."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, max_code
from nodebits.core.observer import Observer
from nodebits.engine.sites import FloorRows, RowQuantizer
from nodebits.engine.sites.fixed import FLOOR
from nodebits.nn.quantizers.observed import ObservedQuantizer
from nodebits.ops.autograd import FakeQuantize, Gradient


class FloorQuantizer(ObservedQuantizer):
    """``u = floor((x - lo) / s)``, ``s = (hi - lo) / (2^q - 1)``, standing for ``s u + lo``.

    SGQuant (Feng et al. 2020), the quantization and "rematching" formulas; gradients pass straight
    through everywhere.

    Args:
        bits: 1 to 8.
        observer: Gives one range ``[lo, hi]`` per tensor.
    """

    def __init__(self, bits: int, observer: Observer) -> None:
        super().__init__(bits, observer)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero_point)``, float32 ``[1]``; an empty range is one level, its own value."""
        low, high = self.observer.range()
        scale = (high - low) / max_code(self.bits)
        # A constant tensor c is code 1 of scale c (published: division by zero).
        flat = scale < MIN_SCALE
        constant = torch.where(low.abs() < MIN_SCALE, torch.ones_like(low), low)
        scale = torch.where(flat, constant.abs(), scale)
        zero_point = torch.where(flat, (low < 0).float(), -low / scale)
        return scale, zero_point

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point - FLOOR, -1, self.bits, int(Gradient.PASS)
        )
        return codes

    def frozen(self) -> RowQuantizer:
        return FloorRows(*self.qparams(), self.bits)
