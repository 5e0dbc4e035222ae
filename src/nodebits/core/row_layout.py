"""Packed rows of different widths, grouped by width, without padding to a common one.

Bucket b (1 to 8 bits) holds its rows one after another, ``ceil(C * b / 8)`` bytes each, in the
order of their nodes; the buckets follow one another in one byte string. A node's place needs only
the widths of all nodes: three bits each, from which :class:`RowLayout` is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import BitwidthError, ShapeError
from nodebits.core.packing import pack, row_bytes, unpack
from nodebits.core.recorded import recorded, unrecorded

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
        position: int32 ``[N]``, row of each node within its bucket.
        counts: Rows of each width 1 to 8.
    """

    widths: Tensor
    order: Tensor
    position: Tensor
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
        unrecorded(lambda: _check_widths(widths))
        small = widths.to(torch.uint8)
        order, position, counts = recorded("row_layout", lambda: arranged(small), small)
        return cls(small, order, position, tuple(unrecorded(counts.tolist)))

    @property
    def num_rows(self) -> int:
        """N."""
        return self.widths.numel()

    @property
    def mean_bits(self) -> float:
        """Mean width of the rows; 0 without rows."""
        total = sum(bits * n for bits, n in enumerate(self.counts, start=1))
        return total / max(self.num_rows, 1)

    def bytes(self, num_cols: int) -> int:
        """Bytes of the codes of rows of ``num_cols`` columns."""
        return bucket_bytes(self.counts, num_cols)


def arranged(widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order, position and counts (int64 ``[8]``) of a :class:`RowLayout`.

    Args:
        widths: uint8 ``[N]``, 1 to 8.
    """
    buckets = [(widths == bits).nonzero().view(-1) for bits in range(1, 9)]
    order = torch.cat(buckets)
    counts = torch.tensor([nodes.numel() for nodes in buckets], device=widths.device)
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=widths.device)
    position = place - starts[widths.long() - 1]
    return order.to(torch.int32), position.to(torch.int32), counts


def _check_widths(widths: Tensor) -> None:
    bad = (widths < 1) | (widths > 8)
    if bool(bad.any()):
        at = int(bad.nonzero()[0])
        raise BitwidthError(f"the width of row {at} is {widths[at].item()}: a bitwidth is 1 to 8")
