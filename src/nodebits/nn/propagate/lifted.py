"""Rows of nodes or edges that are decoded where they are taken."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.qtensor import QTensor
from nodebits.nn.functional import Rows, dequantize_rows
from nodebits.ops import Source


class Lifted:
    """What a site made of a tensor, to be taken by rows.

    Packed rows of one width are decoded as they are gathered. Others are decoded once, at the
    first use.

    Args:
        rows: Packed rows, codes, or plain rows of any type.
        shape: Of the tensor.
    """

    def __init__(self, rows: Rows, shape: torch.Size) -> None:
        self._rows, self.shape = rows, shape
        self._values: Tensor | None = None

    @property
    def width(self) -> int:
        """Values of a row."""
        return max(self.shape[1:].numel(), 1)

    @property
    def values(self) -> Tensor:
        """The whole tensor, decoded."""
        if self._values is None:
            self._values = dequantize_rows(self._rows).view(self.shape)
        return self._values

    def take(self, index: Tensor, begin: int, end: int) -> Tensor:
        """Rows ``index[begin:end]``, of the tensor's further dimensions.

        Args:
            index: int32 ``[E]``.
            begin: First entry.
            end: Last entry, exclusive.
        """
        rows = self._rows
        if isinstance(rows, QTensor) and self._values is None:
            source = Source(rows.packed, rows.bits, rows.num_cols)
            taken = ops.gather_rows(
                source, index, begin, end, rows.scale, rows.zero_point, rows.axis
            )
            return taken.view(-1, *self.shape[1:])
        return self.values.index_select(0, index[begin:end])

    def block(self, begin: int, end: int) -> Tensor:
        """Rows ``[begin, end)``."""
        rows = self._rows
        if isinstance(rows, QTensor) and self._values is None:
            by_row = rows.axis == 0
            scale, zero_point = rows.scale, rows.zero_point
            part = QTensor(
                rows.packed[begin:end],
                scale[begin:end] if by_row else scale,
                zero_point[begin:end] if by_row and zero_point.numel() > 1 else zero_point,
                rows.bits,
                rows.num_cols,
                rows.axis,
            )
            return part.dequantize().view(-1, *self.shape[1:])
        return self.values[begin:end]
