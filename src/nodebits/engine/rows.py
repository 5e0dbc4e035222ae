"""Rows: the codes of a matrix and what they are read with, in whatever format.

A plain container, not a tensor subclass. What differs from format to format (how codes lie in
memory, which operator multiplies or sums them) its :class:`~nodebits.engine.formats.Format` knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, Summands
from nodebits.engine.formats.dense import Dense
from nodebits.engine.formats.floats import PLAIN, Floats
from nodebits.ops import host


@dataclass(frozen=True)
class Rows:
    """A quantized matrix ``[N, C]``.

    Attributes:
        data: The codes, in their format.
        affine: Scale, zero point and shift.
    """

    data: Format
    affine: Affine

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
        """
        self.data.check()
        self.affine.check(*self.data.shape, self.data.layout)

    @classmethod
    def of_floats(cls, values: Tensor) -> Rows:
        """Values that stay as they are, float32 ``[N, C]``."""
        return cls(Floats(values), PLAIN)

    @classmethod
    def dense(
        cls,
        packed: Tensor,
        bits: int,
        num_cols: int,
        scale: Tensor,
        zero_point: Tensor,
        axis: int = -1,
    ) -> Rows:
        """Rows of one width.

        Args:
            packed: uint8 ``[N, ceil(num_cols * bits / 8)]``.
            bits: 1 to 8.
            num_cols: Columns before packing.
            scale: float32 ``[1]`` (``axis`` -1), ``[num_cols]`` (1) or ``[N]`` (0).
            zero_point: float32, ``[1]`` or shaped like ``scale``.
            axis: Which axis ``scale`` runs along.
        """
        return cls(Dense(packed, bits, num_cols), Affine(scale, zero_point, axis))

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, num_cols)``."""
        return self.data.shape

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.data.shape[0]

    @property
    def num_cols(self) -> int:
        """Columns."""
        return self.data.shape[1]

    @property
    def bits(self) -> int | None:
        """Width of the codes, the largest where rows differ; None for floats."""
        return self.data.bits

    @property
    def is_float(self) -> bool:
        """Whether these are no codes."""
        return self.data.bits is None

    @property
    def by_row(self) -> bool:
        """Whether every row has a scale."""
        return self.affine.by_row

    @property
    def is_plain(self) -> bool:
        """Whether all rows have one width, scale and zero point, or one per column."""
        found = self.summands()
        return found is not None and found.row_zero is None

    def summands(self) -> Summands | None:
        """Packed fields that integer sums read; None where every row has a scale."""
        return None if self.by_row else self.data.summands(self.affine)

    @property
    def layout(self) -> RowLayout | None:
        """Where rows lie that have widths of their own."""
        return self.data.layout

    @property
    def scale(self) -> Tensor:
        """Scales of the codes, float32."""
        return self.affine.scale

    @property
    def zero_point(self) -> Tensor:
        """Codes that stand for zero, float32."""
        return self.affine.zero_point

    @property
    def nbytes(self) -> int:
        """Bytes of codes and parameters together; zero points by width follow from the widths."""
        if self.is_float:
            return self.data.nbytes
        affine, rows = self.affine, self.data
        size = rows.nbytes + 4 * affine.scale.numel()
        if rows.layout is None and rows.packs_zeros:
            size += 4 * affine.zero_point.numel()
        if affine.shift is not None and not rows.transient:
            size += (3 * self.num_rows + 7) // 8
        return size

    def unscaled(self) -> Rows:
        """These rows with a scale of 1, for whoever accounts for the scales elsewhere."""
        return Rows(self.data, Affine(self.scale.new_ones(1), self.zero_point))

    def settled(self) -> Rows:
        """These rows, packed where they still waited to be."""
        data, affine = self.data.settled(self.affine)
        return self if data is self.data else Rows(data, affine)

    def aligned(self) -> Rows:
        """These rows as they are summed, for whoever sums them more than once."""
        data = self.data.aligned(self.affine)
        return self if data is self.data else Rows(data, self.affine)

    def selected(self, index: Tensor) -> Rows:
        """Some of the rows, as they are: nothing is decoded.

        Args:
            index: int64 ``[n]``.

        Raises:
            NodeIndexError: If an index is no row.
            ConfigError: If the rows only exist inside of a forward.
        """
        return Rows(self.data.selected(index), self.affine.selected(index, self.layout))

    def on_host(self, device: torch.device) -> Rows:
        """These rows in memory of the host that a device reads in place, with what is per row.

        Args:
            device: A :func:`nodebits.ops.host.reader`; what is not per row moves there.

        Raises:
            ConfigError: If the rows are not in the host's memory, or only inside of a forward.
            OutOfMemoryError: If they cannot be pinned.
        """
        place = partial(host.readable_copy, device=device)
        data = self.data.placed(place)
        return Rows(data, self.affine.placed(place, device, self.layout))

    def taken(self, index: Tensor, begin: int, end: int) -> Tensor | None:
        """Values of the rows ``index[begin:end]``; None where all are decoded instead."""
        return self.data.taken(self.affine, index, begin, end)

    def block(self, begin: int, end: int) -> Tensor | None:
        """Values of the rows ``[begin, end)``; None where all are decoded instead."""
        return self.data.block(self.affine, begin, end)

    def codes(self) -> Tensor:
        """Returns the uint8 ``[N, C]`` codes, shifted; float32 values where there are no codes."""
        return self.data.codes(self.affine)

    def float_codes(self) -> Tensor:
        """:meth:`codes` as float32."""
        return self.codes().float()

    def centred(self) -> Tensor:
        """Codes minus zero point, float32 ``[N, C]``; the values themselves without codes."""
        if self.is_float:
            return self.codes()
        return self.codes().float() - self.affine.offsets(self.layout)

    def dequantize(self) -> Tensor:
        """Returns the float32 ``[N, C]`` values."""
        codes = self.codes()
        return codes if self.is_float else self.affine.values_of(codes, self.layout)
