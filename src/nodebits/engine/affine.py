"""How codes are read: ``(code - zero_point) * 2^shift * scale``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.core.recorded import unrecorded
from nodebits.core.row_layout import RowLayout
from nodebits.engine.by_width import zero_points_of
from nodebits.ops.selection import take_rows


@dataclass(frozen=True)
class Affine:
    """Parameters of rows.

    Attributes:
        scale: float32 ``[1]`` (``axis`` -1), ``[num_cols]`` (1) or ``[N]`` (0).
        zero_point: float32, ``[1]`` or shaped like ``scale``; ``[8]``, one per width, where rows
            have widths of their own.
        axis: Which axis ``scale`` runs along.
        shift: uint8 ``[N]``, ``width + shift <= 8``; None for 0. Only with axis 1 or -1: a power of
            two commutes with an integer sum over nodes, any other scale per node does not.
    """

    scale: Tensor
    zero_point: Tensor
    axis: int = -1
    shift: Tensor | None = None

    @property
    def by_row(self) -> bool:
        """Whether every row has a scale."""
        return self.axis == 0

    @property
    def row_scale(self) -> Tensor | None:
        """The scales of rows, ``[N, 1]``; None where they are not by row."""
        return self.scale.view(-1, 1) if self.axis == 0 else None

    def columns(self, scale: Tensor) -> Tensor:
        """``scale`` ``[M]`` of a weight, times that of the rows where they share one."""
        return scale if self.axis == 0 else scale * self.scale

    def selected(self, index: Tensor, layout: RowLayout | None) -> Affine:
        """Those of some rows.

        Args:
            index: int64 ``[n]``.
            layout: Of all rows, where they have widths of their own.
        """
        scale, zero_point, shift = self.scale, self.zero_point, self.shift
        if self.axis == 0:
            scale = take_rows(scale, index)
            if layout is None and zero_point.numel() > 1:
                zero_point = take_rows(zero_point, index)
        if shift is not None:
            shift = take_rows(shift, index)
        return Affine(scale, zero_point, self.axis, shift)

    def placed(
        self, place: Callable[[Tensor], Tensor], device: torch.device, layout: RowLayout | None
    ) -> Affine:
        """The same parameters in other memory.

        Args:
            place: For those of rows, see :meth:`nodebits.engine.formats.base.Format.placed`.
            device: For all others.
            layout: Of the rows, where they have widths of their own.
        """
        by_row = self.axis == 0
        zeros = by_row and layout is None and self.zero_point.numel() > 1
        return Affine(
            place(self.scale) if by_row else self.scale.to(device),
            place(self.zero_point) if zeros else self.zero_point.to(device),
            self.axis,
            None if self.shift is None else place(self.shift),
        )

    def check(self, num_rows: int, num_cols: int, layout: RowLayout | None) -> None:
        """Compares with the codes that it belongs to.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
        """
        length = {-1: 1, 0: num_rows, 1: num_cols}.get(self.axis)
        if length is None or self.scale.numel() != length:
            raise ShapeError(
                f"the scale of rows has {self.scale.numel()} values but axis {self.axis} needs "
                f"{length}"
            )
        allowed = {1, length} if layout is None else {8}
        if self.zero_point.numel() not in allowed:
            one_each = "" if layout is None else ", one per width"
            raise ShapeError(
                f"zero_point of rows has {self.zero_point.numel()} values, expected "
                f"{' or '.join(map(str, sorted(allowed)))}{one_each}"
            )
        if self.shift is None:
            return
        if self.axis == 0 or self.shift.dtype != torch.uint8 or self.shift.numel() != num_rows:
            raise ShapeError(
                f"the shift of rows must be uint8 [{num_rows}] beside a shared scale, got "
                f"{self.shift.dtype} {list(self.shift.shape)} with axis {self.axis}"
            )
        shift = self.shift
        if (
            layout is not None
            and num_rows
            and unrecorded(lambda: int((shift + layout.widths).max())) > 8
        ):
            raise ShapeError("the shift of rows moves codes out of 8 bits: width + shift <= 8")

    def row_zero_point(self, layout: RowLayout) -> Tensor:
        """Zero point of every row, times ``2^shift``: float32 ``[N, 1]``."""
        return zero_points_of(self.zero_point, layout.widths, self.shift)

    def offsets(self, layout: RowLayout | None) -> Tensor:
        """Zero points as they broadcast over ``[N, C]`` codes, times ``2^shift``."""
        if layout is not None:
            return self.row_zero_point(layout)
        return self.zero_point.view(-1, 1) if self.axis == 0 else self.zero_point

    def values_of(self, codes: Tensor, layout: RowLayout | None) -> Tensor:
        """float32 values of shifted codes ``[N, C]``."""
        scale = self.scale.view(-1, 1) if self.axis == 0 else self.scale
        return (codes.float() - self.offsets(layout)) * scale
