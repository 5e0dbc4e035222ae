"""Rows of one width: unsigned fields, low bits first, every row on a byte boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import check_bits
from nodebits.core.codings.base import coding_of
from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import BITS, SIZE, Choice, Optional, Options
from nodebits.core.packing import row_bytes
from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, Sample, Summands, not_by_row, register_format
from nodebits.engine.stage import Stage, of_products, weight_record
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Epilogue, Product, Source
from nodebits.ops.selection import take_rows


@register_format
@dataclass(frozen=True)
class Dense(Format):
    """Packed rows.

    Attributes:
        packed: uint8 ``[N, ceil(num_cols * bits / 8)]``.
        bits: 1 to 8.
        num_cols: Columns before packing.
        coding: Number of the coding of the fields (:mod:`nodebits.core.codings`); 0 is unsigned.
    """

    name: ClassVar[str] = "dense"
    layout: ClassVar[None] = None
    fields: ClassVar[Options] = {
        "bits": BITS,
        "num_cols": SIZE,
        "axis": Choice((-1, 0, 1)),
        "coding": Optional(SIZE, absent=True),
    }
    packed: Tensor
    bits: int
    num_cols: int
    coding: int = 0

    def check(self) -> None:
        check_bits(self.bits, "bits of rows")
        expected = row_bytes(self.num_cols, self.bits)
        packed = self.packed
        if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.size(1) != expected:
            raise ShapeError(
                f"packed rows must be uint8 [N, {expected}] for {self.num_cols} columns of "
                f"{self.bits} bits, got {packed.dtype} {list(packed.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.size(0), self.num_cols

    @property
    def nbytes(self) -> int:
        return self.packed.numel()

    @property
    def source(self) -> Source:
        """The rows as operators read them."""
        return Source(self.packed, self.bits, self.num_cols, self.coding)

    def codes(self, affine: Affine) -> Tensor:
        return self._unpacked(self.packed)

    def selected(self, index: Tensor) -> Dense:
        return replace(self, packed=take_rows(self.packed, index))

    def _unpacked(self, packed: Tensor) -> Tensor:
        plain = coding_of(self.coding).decode(packed, self.bits, self.num_cols)
        return ops.unpack(plain, self.bits, self.num_cols)

    def sample(self, affine: Affine, rows: slice, cols: slice) -> Sample:
        some = self._unpacked(self.packed[rows].contiguous())
        return Sample(some[:, cols], float(coding_of(self.coding).top(self.bits)))

    def taken(self, affine: Affine, index: Tensor, begin: int, end: int) -> Tensor:
        return ops.gather_rows(
            self.source, index, begin, end, affine.scale, affine.zero_point, affine.axis
        )

    def block(self, affine: Affine, begin: int, end: int) -> Tensor:
        codes = self._unpacked(self.packed[begin:end])
        if affine.axis != 0:
            return affine.values_of(codes, None)
        zero_point = affine.zero_point
        part = Affine(
            affine.scale[begin:end],
            zero_point[begin:end] if zero_point.numel() > 1 else zero_point,
            0,
        )
        return part.values_of(codes, None)

    def as_product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Product:
        """``rows @ weight^T + bias`` as operators read it."""
        epilogue = Epilogue(
            affine.columns(weight.scale),
            weight.col_sum * affine.zero_point,
            None,
            affine.row_scale,
            bias,
        )
        return Product(self.source, weight_record(weight), epilogue)

    def product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Stage:
        return of_products([self.as_product(affine, weight, bias)])

    def summands(self, affine: Affine) -> Summands:
        not_by_row(affine)
        return Summands(self.source, affine.zero_point)

    def parts(self, affine: Affine) -> tuple[dict[str, Any], dict[str, Tensor]]:
        about = {"bits": self.bits, "num_cols": self.num_cols, "axis": affine.axis}
        if self.coding:
            about["coding"] = self.coding
        return about, {
            "packed": self.packed,
            "scale": affine.scale,
            "zero_point": affine.zero_point,
        }

    @classmethod
    def read(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> tuple[Dense, Affine]:
        affine = Affine(parts["scale"], parts["zero_point"], int(about["axis"]))
        coding = int(about.get("coding", 0))
        coding_of(coding).check_width(about["bits"])
        return cls(parts["packed"], about["bits"], int(about["num_cols"]), coding), affine
