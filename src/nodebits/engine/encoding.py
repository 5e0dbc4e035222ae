"""An encoding: what rows are made with and read with, once it is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.codings.base import coding_of
from nodebits.core.recorded import recorded
from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.formats.aligned import Aligned
from nodebits.engine.formats.bucketed import Bucketed
from nodebits.engine.formats.dense import Dense
from nodebits.engine.rows import Rows
from nodebits.ops import Output


def inverse_power(shift: Tensor) -> Tensor:
    """``2^-shift``, float32, of uint8."""
    return recorded("inverse_power", lambda: torch.exp2(-shift.float()), shift)


class Encoding(NamedTuple):
    """Of rows of one width, or of several (``layout``).

    Attributes:
        affine: What the codes are read with.
        rounding: The zero point with which codes are made: like that of ``affine``.
        bits: Width of the codes; the largest where there is a layout.
        layout: Widths of the rows, where they have their own.
        coding: Number of the coding of their fields (:mod:`nodebits.core.codings`), without one.
    """

    affine: Affine
    rounding: Tensor
    bits: int
    layout: RowLayout | None = None
    coding: int = 0

    def pack(self, x: Tensor, row_factor: Tensor | None) -> Rows:
        """Quantizes and packs ``x`` float32 ``[N, C]``, its rows times ``row_factor`` ``[N]``."""
        scale, axis, shift = self.affine.scale, self.affine.axis, self.affine.shift
        layout = self.layout
        if layout is None:
            packed = ops.quantize_pack(x, scale, self.rounding, axis, self.bits, row_factor)
            return self.rows(packed, x.size(1))
        if shift is not None:
            # Powers of two are exact in float: x f * 2^-e / s rounds as (x f) / (s * 2^e) does.
            power = inverse_power(shift)
            row_factor = power if row_factor is None else row_factor * power
        elif row_factor is not None:
            x, row_factor = x * row_factor.view(-1, 1), None
        packed = ops.quantize_pack_bucketed(
            x, scale, self.rounding, axis, layout.widths, layout.position, row_factor
        )
        return Rows(Bucketed(packed, layout, x.size(1)), self.affine)

    def output(self, row_factor: Tensor | None) -> Output:
        """What makes a fused operator write these rows."""
        affine, layout = self.affine, self.layout
        made = Output(affine.scale, self.rounding, self.bits, row_factor)
        if layout is None:
            return made
        position = layout.position if affine.shift is None else None
        return made._replace(widths=layout.widths, position=position, shift=affine.shift)

    def rows(self, packed: Tensor, num_cols: int) -> Rows:
        """What a fused operator made, with its parameters."""
        if self.layout is None:
            if self.coding:
                packed = coding_of(self.coding).saturate(packed, self.bits, num_cols)
            return Rows(Dense(packed, self.bits, num_cols, self.coding), self.affine)
        if self.affine.shift is None:
            return Rows(Bucketed(packed, self.layout, num_cols), self.affine)
        return Rows(Aligned(packed, self.layout), self.affine)
