"""Rows of several widths, grouped by width (:mod:`nodebits.core.row_layout`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import ConfigError, ShapeError
from nodebits.core.file_fields import FLAG, SIZE, Choice, Options
from nodebits.core.packing import row_bytes
from nodebits.core.row_layout import WIDTH_BITS, RowLayout, pack_widths, unpack_widths
from nodebits.engine.affine import Affine
from nodebits.engine.formats.aligned import Aligned
from nodebits.engine.formats.base import Format, Sample, Summands, not_by_row, register_format
from nodebits.engine.stage import Stage, weight_record
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Epilogue, Mixed
from nodebits.ops.selection import take_rows


@register_format
@dataclass(frozen=True)
class Bucketed(Format):
    """The buckets one after another.

    Attributes:
        packed: uint8 ``[layout.bytes(num_cols)]``.
        layout: Where each node's row is.
        num_cols: Columns before packing.
    """

    name: ClassVar[str] = "bucketed"
    fields: ClassVar[Options] = {
        "num_cols": SIZE,
        "num_rows": SIZE,
        "axis": Choice((-1, 0, 1)),
        "bound": FLAG,
    }
    packed: Tensor
    layout: RowLayout
    num_cols: int

    def check(self) -> None:
        expected = self.layout.bytes(self.num_cols)
        if self.packed.dtype != torch.uint8 or tuple(self.packed.shape) != (expected,):
            raise ShapeError(
                f"packed rows must be uint8 [{expected}] for this layout, got "
                f"{self.packed.dtype} {list(self.packed.shape)}"
            )

    @property
    def bits(self) -> int:
        """Largest width that occurs; 1 without rows."""
        return max((b for b, count in enumerate(self.layout.counts, 1) if count), default=1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.layout.num_rows, self.num_cols

    @property
    def nbytes(self) -> int:
        """See :attr:`Format.nbytes`: widths take three bits each, zero points follow from them."""
        return self.packed.numel() + row_bytes(self.layout.num_rows, WIDTH_BITS)

    @property
    def mixed(self) -> Mixed:
        """The rows as operators read them."""
        layout = self.layout
        return Mixed(self.packed, layout.order, list(layout.counts), self.num_cols)

    def selected(self, index: Tensor) -> Bucketed:
        layout = RowLayout.of(take_rows(self.layout.widths, index))
        nodes = take_rows(index, layout.order.long())  # by width
        places = take_rows(self.layout.position, nodes).long()
        parts, first, start = [], 0, 0
        for bits, (count, held) in enumerate(
            zip(layout.counts, self.layout.counts, strict=True), 1
        ):
            size = row_bytes(self.num_cols, bits)
            rows = self.packed[start : start + held * size].view(held, size)
            parts.append(take_rows(rows, places[first : first + count]).view(-1))
            first, start = first + count, start + held * size
        return replace(self, packed=torch.cat(parts), layout=layout)

    def codes(self, affine: Affine) -> Tensor:
        return ops.unpack_bucketed(self.mixed, affine.shift)

    def sample(self, affine: Affine, rows: slice, cols: slice) -> Sample:
        some = ops.unpack_bucketed(self.mixed, None)[rows, cols]
        return Sample(some, torch.exp2(self.layout.widths[rows].float()).view(-1, 1) - 1)

    def product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Stage:
        """See :meth:`Format.product`: one integer product per bucket.

        Raises:
            ConfigError: If the rows carry shifts, which only messages do.
        """
        if affine.shift is not None:
            raise ConfigError(
                "rows with a power of two per row are messages: they enter no product"
            )
        unsigned = float(affine.zero_point[-1]) == 0.0  # as for every width
        epilogue = Epilogue(
            affine.columns(weight.scale),
            None if unsigned else weight.col_sum,
            None if unsigned else affine.row_zero_point(self.layout),
            affine.row_scale,
            bias,
        )
        records = (self.mixed, weight_record(weight), epilogue)
        shape = self.layout.num_rows, weight.num_rows
        return Stage(ops.fused_gemm_bucketed, records, shape, self.packed.device)

    def aligned(self, affine: Affine) -> Format:
        not_by_row(affine)
        return Aligned(self.codes(affine), self.layout)

    def summands(self, affine: Affine) -> Summands | None:
        return self.aligned(affine).summands(affine)

    def parts(self, affine: Affine) -> tuple[dict[str, Any], dict[str, Tensor]]:
        about = {
            "num_cols": self.num_cols,
            "axis": affine.axis,
            "num_rows": self.layout.num_rows,
            "bound": False,
        }
        parts = {
            "packed": self.packed,
            "widths": pack_widths(self.layout.widths),
            "scale": affine.scale,
            "zero_point": affine.zero_point,
        }
        if affine.shift is not None:
            parts["shift"] = pack_widths(affine.shift + 1)
        return about, parts

    @classmethod
    def read(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> tuple[Bucketed, Affine]:
        num_rows = int(about["num_rows"])
        layout = RowLayout.of(unpack_widths(parts["widths"], num_rows))
        packed_shift = parts.get("shift")
        shift = None if packed_shift is None else unpack_widths(packed_shift, num_rows) - 1
        affine = Affine(parts["scale"], parts["zero_point"], int(about["axis"]), shift)
        return cls(parts["packed"], layout, int(about["num_cols"])), affine
