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
        place = torch.empty_like(self.order, dtype=torch.int32)
        place[self.order.long()] = torch.arange(
            self.num_rows, dtype=torch.int32, device=place.device
        )
        starts = torch.tensor((0, *self.counts), device=place.device).cumsum(0).to(torch.int32)
        return place - starts[self.widths.long() - 1]

    def bytes(self, num_cols: int) -> int:
        """Bytes of the codes of rows of ``num_cols`` columns."""
        return bucket_bytes(self.counts, num_cols)
