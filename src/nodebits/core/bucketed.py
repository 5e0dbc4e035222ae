"""Packed rows of different widths, grouped by width, without padding to a common one.

Bucket b (1 to 8 bits) holds its rows one after another, ``ceil(C * b / 8)`` bytes each, in the
order of their nodes; the buckets follow one another in one byte string. A node's place needs only
the widths of all nodes: three bits each, from which :class:`RowLayout` is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import pack, row_bytes, unpack

WIDTH_BITS = 3


def bucket_bytes(counts: Sequence[int], num_cols: int) -> int:
    """Bytes of all buckets: ``counts[b - 1]`` rows of b bits."""
    return sum(n * row_bytes(num_cols, bits) for bits, n in enumerate(counts, start=1))


def pack_widths(widths: Tensor) -> Tensor:
    """Widths 1 to 8, uint8 ``[N]``, as three bits each: uint8 ``[ceil(3 N / 8)]``."""
    return pack((widths - 1).view(1, -1), WIDTH_BITS).view(-1)


def unpack_widths(packed: Tensor, num_rows: int) -> Tensor:
    """Inverse of :func:`pack_widths`."""
    return unpack(packed.view(1, -1), WIDTH_BITS, num_rows).view(-1) + 1


@dataclass(frozen=True)
class RowLayout:
    """Which node's row is where.

    Attributes:
        widths: uint8 ``[N]``, 1 to 8.
        order: int32 ``[N]``, nodes by width, nodes of one width in ascending order.
        counts: Rows of each width 1 to 8.
    """

    widths: Tensor
    order: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, widths: Tensor) -> RowLayout:
        """Sorts nodes by width.

        Args:
            widths: ``[N]``, integers from 1 to 8 of any dtype.

        Raises:
            ShapeError: If ``widths`` is not a vector.
            BitwidthError: If a width is outside 1 to 8; the message names the first.
        """
        if widths.dim() != 1:
            raise ShapeError(f"widths must be [N], got {list(widths.shape)}")
        bad = (widths < 1) | (widths > 8)
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            raise BitwidthError(
                f"the width of row {at} is {widths[at].item()}: a bitwidth is 1 to 8"
            )
        small = widths.to(torch.uint8)
        buckets = [(small == bits).nonzero().view(-1) for bits in range(1, 9)]
        order = torch.cat(buckets).to(torch.int32)
        return cls(small, order, tuple(nodes.numel() for nodes in buckets))

    @property
    def num_rows(self) -> int:
        """N."""
        return self.widths.numel()

    @property
    def mean_bits(self) -> float:
        """Mean width of the rows; 0 without rows."""
        total = sum(bits * n for bits, n in enumerate(self.counts, start=1))
        return total / max(self.num_rows, 1)

    @cached_property
    def position(self) -> Tensor:
        """Row of each node within its bucket, int32 ``[N]``."""
        place = torch.empty(self.num_rows, dtype=torch.int32)
        place[self.order.long()] = torch.arange(self.num_rows, dtype=torch.int32)
        starts = torch.tensor((0, *self.counts)).cumsum(0).to(torch.int32)
        return place - starts[self.widths.long() - 1]

    def bytes(self, num_cols: int) -> int:
        """Bytes of the codes of rows of ``num_cols`` columns."""
        return bucket_bytes(self.counts, num_cols)


@dataclass(frozen=True)
class BucketedRows:
    """Rows of several widths with their parameters: what ``QTensor`` is for one width.

    A code u of node i stands for ``(u - zero_point) * 2^shift_i * scale``.

    Attributes:
        packed: uint8 ``[layout.bytes(num_cols)]``, the buckets one after another.
        layout: Where each node's row is.
        scale: float32 ``[N]`` (``axis`` 0), ``[num_cols]`` (1) or ``[1]`` (-1).
        zero_point: float32 ``[8]``, one per width.
        num_cols: Columns before packing.
        axis: Which axis ``scale`` runs along.
        shift: uint8 ``[N]``, ``width + shift <= 8``; None for 0. Only with axis 1 or -1: a power of
            two commutes with an integer sum over nodes, any other scale per node does not.
    """

    packed: Tensor
    layout: RowLayout
    scale: Tensor
    zero_point: Tensor
    num_cols: int
    axis: int = 0
    shift: Tensor | None = None

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
        """
        expected = self.layout.bytes(self.num_cols)
        if self.packed.dtype != torch.uint8 or tuple(self.packed.shape) != (expected,):
            raise ShapeError(
                f"BucketedRows.packed must be uint8 [{expected}] for this layout, got "
                f"{self.packed.dtype} {list(self.packed.shape)}"
            )
        rows = self.layout.num_rows
        length = {-1: 1, 0: rows, 1: self.num_cols}.get(self.axis)
        if length is None or self.scale.numel() != length:
            raise ShapeError(
                f"BucketedRows.scale has {self.scale.numel()} values but axis {self.axis} needs "
                f"{length}"
            )
        if self.zero_point.numel() != 8:
            raise ShapeError(
                f"zero_point of BucketedRows has {self.zero_point.numel()} values, expected 8, one "
                "per width"
            )
        if self.shift is None:
            return
        if self.axis == 0 or self.shift.dtype != torch.uint8 or self.shift.numel() != rows:
            raise ShapeError(
                f"BucketedRows.shift must be uint8 [{rows}] beside a shared scale, got "
                f"{self.shift.dtype} {list(self.shift.shape)} with axis {self.axis}"
            )
        if rows and int((self.shift + self.layout.widths).max()) > 8:
            raise ShapeError("BucketedRows.shift moves codes out of 8 bits: width + shift <= 8")

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.layout.num_rows

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, num_cols)`` of the unpacked matrix."""
        return self.num_rows, self.num_cols

    @property
    def nbytes(self) -> int:
        """Bytes of codes, widths (three bits each) and scales; zero points follow from widths."""
        widths = row_bytes(self.num_rows, WIDTH_BITS)
        shifts = 0 if self.shift is None else row_bytes(self.num_rows, WIDTH_BITS)
        return self.packed.numel() + widths + shifts + 4 * self.scale.numel()

    @property
    def max_code(self) -> int:
        """Largest shifted code."""
        top = 0
        for bits, count in enumerate(self.layout.counts, start=1):
            if count:
                top = (1 << bits) - 1
        return top if self.shift is None else 255

    def codes(self) -> Tensor:
        """Returns the uint8 ``[N, num_cols]`` codes in node order, not shifted."""
        codes = self.packed.new_empty((self.num_rows, self.num_cols))
        begin = 0
        nodes_by_width = self.layout.order.long().split(list(self.layout.counts))
        for bits, nodes in enumerate(nodes_by_width, start=1):
            size = nodes.numel() * row_bytes(self.num_cols, bits)
            if nodes.numel():
                rows = self.packed[begin : begin + size].view(nodes.numel(), -1)
                codes[nodes] = unpack(rows, bits, self.num_cols)
            begin += size
        return codes

    def row_zero_point(self) -> Tensor:
        """Zero point of every row, times ``2^shift``: float32 ``[N, 1]``."""
        return _row_zero_point(self.zero_point, self.layout, self.shift)

    def dequantize(self) -> Tensor:
        """Returns the float32 ``[N, num_cols]`` values."""
        return self.values_of(self.codes())

    def values_of(self, codes: Tensor) -> Tensor:
        """The float32 values of :meth:`codes`, however they were unpacked."""
        codes = codes.float()
        if self.shift is not None:
            codes = torch.ldexp(codes, self.shift.int().view(-1, 1))
        scale = self.scale.view(-1, 1) if self.axis == 0 else self.scale
        return (codes - self.row_zero_point()) * scale


def _row_zero_point(zero_point: Tensor, layout: RowLayout, shift: Tensor | None) -> Tensor:
    """``[8]``, by width, to ``[N, 1]``."""
    by_row = zero_point[layout.widths.long() - 1]
    if shift is not None:
        by_row = torch.ldexp(by_row, shift.int())
    return by_row.view(-1, 1)


@dataclass(frozen=True)
class AlignedRows:
    """Rows of several widths as bytes, their codes shifted: what a neighbour sum adds up.

    A byte v of node i stands for ``(v - zero_point_i * 2^shift_i) * scale``. Transient: a fused
    operator makes them between a product and a sum, instead of :class:`BucketedRows`.

    Attributes:
        codes: uint8 ``[N, num_cols]``, ``code << shift``.
        layout: Widths of the codes.
        scale: float32 ``[num_cols]`` (``axis`` 1) or ``[1]`` (-1).
        zero_point: float32 ``[8]``, one per width.
        axis: Which axis ``scale`` runs along.
        shift: uint8 ``[N]``; None for 0.
    """

    codes: Tensor
    layout: RowLayout
    scale: Tensor
    zero_point: Tensor
    axis: int
    shift: Tensor | None = None

    @property
    def num_cols(self) -> int:
        """Columns."""
        return self.codes.size(1)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and scales."""
        return self.codes.numel() + 4 * self.scale.numel()

    def row_zero_point(self) -> Tensor:
        """Zero point of every row, times ``2^shift``: float32 ``[N, 1]``."""
        return _row_zero_point(self.zero_point, self.layout, self.shift)

    def dequantize(self) -> Tensor:
        """Returns the float32 ``[N, num_cols]`` values."""
        return (self.codes.float() - self.row_zero_point()) * self.scale
