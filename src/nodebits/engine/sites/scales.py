"""Where the scales of rows of several widths come from: a strategy each, beside one of widths."""

from __future__ import annotations

from torch import Tensor

from nodebits.engine.affine import Affine
from nodebits.engine.by_width import row_extent, scale_of, zero_points
from nodebits.engine.encoding import Encoding
from nodebits.engine.sites.base import Place, RowQuantizer


class _OfWidths(RowQuantizer):
    """Zero points that follow from the widths."""

    signed: bool

    def measure(self, x: Tensor) -> Tensor:
        """Range of every row ``[N]``, in the units that limits of groups are in."""
        return row_extent(x, self.signed)

    def _encoding(self, place: Place, scale: Tensor, axis: int, shift: Tensor | None) -> Encoding:
        zeros = zero_points(self.signed, scale.device)
        return Encoding(Affine(scale, zeros, axis, shift), zeros, 8, place.layout)


class GroupScales(_OfWidths):
    """A scale for every group of rows; it goes into products only."""

    def scales(self) -> Tensor:
        """Scale of every group, float32 ``[G]``."""
        return self.get_buffer("scale")

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding:
        group = place.group
        scale = self.scales() if group is None else self.row_scales(group)
        return self._encoding(place, scale, 0, None)

    def row_scales(self, group: Tensor) -> Tensor:
        """Scale of every row, float32 ``[N]``, by its group."""
        return self.scales().index_select(0, group)


class OwnScales(_OfWidths):
    """Every row brings its own scale, read from the row at its width."""

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding | None:
        if x is None or place.layout is None:
            return None
        scale = scale_of(row_extent(x, self.signed), place.layout.widths, self.signed)
        return self._encoding(place, scale, 0, None)

    def scale_values(self, num_rows: int) -> int:
        return num_rows


class ShiftedScales(_OfWidths):
    """One scale per column or tensor, times a power of two for every group: it passes sums."""

    scale: Tensor
    axis: int = 1

    def shifts(self) -> Tensor:
        """Exponent of every group, uint8 ``[G]``."""
        raise NotImplementedError

    def row_shifts(self, place: Place) -> Tensor:
        """Exponent of every row, uint8 ``[N]``; the same tensor for the same rows."""
        shift = self.shifts()
        return shift if place.group is None else shift.index_select(0, place.group)

    def measure(self, x: Tensor) -> Tensor:
        return row_extent(x / self.scale, self.signed)

    def encoding(self, place: Place, x: Tensor | None = None) -> Encoding:
        return self._encoding(place, self.scale, self.axis, self.row_shifts(place))

    def scale_values(self, num_rows: int) -> int:
        return self.scale.numel()
