"""Rows of several widths as bytes, their codes shifted: what a neighbour sum adds up.

A byte v of node i stands for ``(v - zero_point_i * 2^shift_i) * scale``. A fused operator makes
them between a product and a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, Sample, Summands, not_by_row, register_format
from nodebits.ops import Source


@register_format
@dataclass(frozen=True)
class Aligned(Format):
    """Shifted bytes.

    Attributes:
        shifted: uint8 ``[N, C]``, ``code << shift``.
        layout: Widths of the codes.
    """

    name: ClassVar[str] = "aligned"
    transient: ClassVar[bool] = True
    bits: ClassVar[int] = 8
    shifted: Tensor
    layout: RowLayout

    @property
    def shape(self) -> tuple[int, int]:
        return self.shifted.size(0), self.shifted.size(1)

    @property
    def nbytes(self) -> int:
        return self.shifted.numel()

    def codes(self, affine: Affine) -> Tensor:
        return self.shifted

    def sample(self, affine: Affine, rows: slice, cols: slice) -> Sample:
        some = self.shifted[rows, cols]
        if affine.shift is not None:
            some = some >> affine.shift[rows].view(-1, 1)
        return Sample(some, torch.exp2(self.layout.widths[rows].float()).view(-1, 1) - 1)

    def summands(self, affine: Affine) -> Summands:
        """See :meth:`Format.summands`.

        ``(u - z_i) * 2^e_i`` summed over neighbours i is ``sum u * 2^e_i`` less ``sum z_i 2^e_i``.
        A bound site has the same shifts (and widths) every time, so the second sum is what it was.
        """
        not_by_row(affine)
        source = Source(self.shifted, 8, self.shifted.size(1))
        one = torch.ones_like(affine.scale[:1])
        return Summands(source, one, affine.row_zero_point(self.layout), affine.shift)
