"""Rows of nodes or edges that are decoded where they are taken."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.engine.rows import Rows


class Lifted:
    """What a site made of a tensor, to be taken by rows.

    Packed rows of one width are decoded as they are gathered. Others are decoded once, at the
    first use.

    Args:
        rows: Packed rows, codes, or plain rows of any type.
        shape: Of the tensor.
    """

    def __init__(self, rows: Codes | Rows | Tensor, shape: torch.Size) -> None:
        self.rows, self.shape = rows, shape
        self._packed = None if isinstance(rows, Tensor) else rows
        self._values: Tensor | None = None

    @property
    def width(self) -> int:
        """Values of a row."""
        return max(self.shape[1:].numel(), 1)

    @property
    def values(self) -> Tensor:
        """The whole tensor, decoded."""
        if self._values is None:
            rows = self.rows
            values = rows if isinstance(rows, Tensor) else rows.dequantize()
            self._values = values.view(self.shape)
        return self._values

    def take(self, index: Tensor, begin: int, end: int) -> Tensor:
        """Rows ``index[begin:end]``, of the tensor's further dimensions.

        Args:
            index: int32 ``[E]``.
            begin: First entry.
            end: Last entry, exclusive.
        """
        rows = self._packed
        if self._values is None and rows is not None:
            taken = rows.taken(index, begin, end)
            if taken is not None:
                return taken.view(-1, *self.shape[1:])
        return self.values.index_select(0, index[begin:end])

    def block(self, begin: int, end: int) -> Tensor:
        """Rows ``[begin, end)``."""
        rows = self._packed
        if self._values is None and rows is not None:
            part = rows.block(begin, end)
            if part is not None:
                return part.view(-1, *self.shape[1:])
        return self.values[begin:end]
