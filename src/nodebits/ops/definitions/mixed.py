"""Rows of several widths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes, unpack
from nodebits.core.places import check_bucket_shifts, check_places
from nodebits.ops import checks
from nodebits.ops.definitions.rows import check_row_factor, quantize_pack
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Mixed


class QuantizePackBucketed(NamedTuple):
    """:func:`quantize_pack` at a width per row; the layout is :mod:`nodebits.core.row_layout`'s.

    Args:
        x: float32 ``[N, C]``.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32 ``[8]``, one per width.
        axis: Which axis the scale runs along.
        widths: uint8 ``[N]``, 1 to 8.
        position: int32 ``[N]``, place of every row in the bucket of its width.
        row_factor: float32 ``[N]``, multiplied first.

    Returns:
        uint8 ``[bytes]``: the buckets of widths 1 to 8, one after another.
    """

    x: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int
    widths: Tensor
    position: Tensor
    row_factor: Tensor | None = None

    def checked(self) -> QuantizePackBucketed:
        """Contiguous, of documented types; raises ShapeError where one does not fit."""
        x = checks.tensor(self.x, "x", torch.float32, 2)
        scale = checks.parameter(self.scale, "scale", self.axis, x, may_be_one=self.axis == -1)
        zero_point = checks.tensor(self.zero_point, "zero_point", torch.float32, 1)
        if zero_point.numel() != 8:
            raise ShapeError(f"zero_point has {zero_point.numel()} values, expected 8, by width")
        widths = checks.of_rows(self.widths, "widths", torch.uint8, x.size(0))
        position = checks.of_rows(self.position, "position", torch.int32, x.size(0))
        check_places(widths, position)
        factor = check_row_factor(self.row_factor, x)
        return QuantizePackBucketed(x, scale, zero_point, self.axis, widths, position, factor)

    def results(self) -> Result:
        """Bytes of rows of several widths."""
        return Result(tuple(self.x.shape), torch.uint8, self.widths)

    def compute(self) -> Tensor:
        """Width by width."""
        x, scale, zero_point, axis, widths, position, row_factor = self
        parts = [x.new_empty(0, dtype=torch.uint8)]
        for bits in range(1, 9):
            nodes = (widths == bits).nonzero().view(-1)
            rows = x.new_zeros((nodes.numel(), row_bytes(x.size(1), bits)), dtype=torch.uint8)
            rows[position[nodes].long()] = quantize_pack.reference(
                x[nodes],
                scale[nodes] if axis == 0 else scale,
                zero_point[bits - 1].expand(nodes.numel() if axis == 0 else 1),
                axis,
                bits,
                None if row_factor is None else row_factor[nodes],
            )
            parts.append(rows.reshape(-1))
        return torch.cat(parts)


quantize_pack_bucketed = operator(QuantizePackBucketed)


def _bucket_rows(rows: Mixed) -> Iterator[tuple[int, Tensor]]:
    """(width, nodes in the bucket's order) of every bucket that is not empty."""
    for bits, nodes in enumerate(rows.order.long().split(list(rows.counts)), start=1):
        if nodes.numel():
            yield bits, nodes


class UnpackBucketed(NamedTuple):
    """Codes in node order, uint8 ``[N, num_cols]``, shifted left by ``shift`` uint8 ``[N]``."""

    rows: Mixed
    shift: Tensor | None = None

    def checked(self) -> UnpackBucketed:
        rows, shift = self.rows.checked(), self.shift
        if shift is not None:
            shift = checks.of_rows(shift, "shift", torch.uint8, rows.order.numel())
            check_bucket_shifts(rows.order, rows.counts, shift)
        return UnpackBucketed(rows, shift)

    def results(self) -> Result:
        return Result((self.rows.order.size(0), self.rows.num_cols), torch.uint8)

    def compute(self) -> Tensor:
        rows, shift = self
        codes = rows.packed.new_empty((rows.order.numel(), rows.num_cols))
        begin = 0
        for bits, nodes in _bucket_rows(rows):
            size = nodes.numel() * row_bytes(rows.num_cols, bits)
            packed = rows.packed[begin : begin + size].view(nodes.numel(), -1)
            codes[nodes] = unpack(packed, bits, rows.num_cols)
            begin += size
        return codes if shift is None else codes << shift.view(-1, 1)


unpack_bucketed = operator(UnpackBucketed)


class NearestGroup(NamedTuple):
    """Nearest group of every row, by binary search (A2Q's Nearest Neighbour Strategy).

    Args:
        extent: float32 ``[N]``.
        limits: float32 ``[m]``, ascending, at least one.

    Returns:
        int32 ``[N]``: the position of the nearest limit, the smaller of two as near; NaN
        gives 0.
    """

    extent: Tensor
    limits: Tensor

    def checked(self) -> NearestGroup:
        extent = checks.tensor(self.extent, "extent", torch.float32, 1)
        limits = checks.tensor(self.limits, "limits", torch.float32, 1)
        if limits.numel() == 0:
            raise ShapeError("limits is empty: there must be at least one group")
        checks.ascending(limits, "limits")
        return NearestGroup(extent, limits)

    def results(self) -> Result:
        return Result(tuple(self.extent.shape), torch.int32)

    def compute(self) -> Tensor:
        extent, limits = self
        at = torch.searchsorted(limits, extent)
        at = torch.where(extent.isnan(), torch.zeros_like(at), at)
        last = limits.numel() - 1
        low, high = limits[(at - 1).clamp_min(0)], limits[at.clamp_max(last)]
        below = (at > last) | ((at > 0) & (extent - low <= high - extent))
        return (at - below.long()).to(torch.int32)


nearest_group = operator(NearestGroup)
