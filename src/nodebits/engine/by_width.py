"""What follows from a row's width: its zero point, and how its range and its scale belong together.

The zero point is 0 where codes are unsigned, ``(2^b - 1) / 2`` where they stand for both signs
(levels evenly around zero, which one and two bits need).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE
from nodebits.core.packing import row_bytes
from nodebits.core.recorded import recorded
from nodebits.core.row_layout import WIDTH_BITS

_ZEROS = torch.zeros(8, device="cpu")
_MIDDLES = torch.tensor([((1 << bits) - 1) / 2 for bits in range(1, 9)], device="cpu")


def zero_points(signed: bool, device: torch.device) -> Tensor:
    """Zero point of every width 1 to 8, float32 ``[8]``; shared, not to be written to."""
    return (_MIDDLES if signed else _ZEROS).to(device)


def zero_points_of(zero_point: Tensor, widths: Tensor, shift: Tensor | None) -> Tensor:
    """Zero point of every row, ``[N, 1]``: that of its width times ``2^shift``."""

    def run() -> Tensor:
        by_row = zero_point[widths.long() - 1]
        return (by_row if shift is None else torch.ldexp(by_row, shift.int())).view(-1, 1)

    return recorded("row_zero_point", run, zero_point, widths, shift)


def row_extent(x: Tensor, signed: bool) -> Tensor:
    """Largest magnitude (largest value, where codes are unsigned) of every row, float32 ``[N]``."""

    def run() -> Tensor:
        if x.size(1) == 0:
            return x.new_zeros(x.size(0))
        return x.abs().amax(1) if signed else x.amax(1).clamp_min(0)

    return recorded("row_extent", run, x, signed)


def extent_of(scale: Tensor, widths: Tensor, signed: bool) -> Tensor:
    """Largest value that a row of this scale and width holds: ``s (2^b - 1)``, or half of it."""
    top = scale * (torch.exp2(widths.float()) - 1)
    return top / 2 if signed else top


def scale_of(extent: Tensor, widths: Tensor, signed: bool) -> Tensor:
    """Inverse of :func:`extent_of`; 1 where the row is (as good as) zero.

    The least scale there is where codes are signed: they have no level at zero.
    """

    def run() -> Tensor:
        top = torch.exp2(widths.float()) - 1
        scale = (2 * extent if signed else extent) / top
        return torch.where(scale < MIN_SCALE, MIN_SCALE if signed else 1.0, scale)

    return recorded("width_scale", run, extent, widths, signed)


def spread_order(limits: Tensor, most: int) -> Tensor:
    """Positions in ascending order of ``limits``, at most ``most``, evenly spread."""
    order = limits.argsort(stable=True)
    if order.numel() > most:
        places = torch.linspace(0, order.numel() - 1, most, device=order.device)
        order = order[places.round().long()]
    return order


def groups_bytes(num_rows: int, groups: int) -> int:
    """Scale, range and width of every group, and the number of each row's group."""
    number = max((groups - 1).bit_length(), 1)
    return 8 * groups + row_bytes(groups, WIDTH_BITS) + row_bytes(num_rows, number)
