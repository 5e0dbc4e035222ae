"""Rows of which few codes are not zero: the columns and codes of those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.file_fields import BITS, SIZE, Options
from nodebits.core.indices import check_within
from nodebits.core.recorded import recorded
from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, register_format
from nodebits.engine.stage import Stage
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Edges, Epilogue, Own, Source
from nodebits.ops.features import SparseCodes
from nodebits.ops.selection import take_lists, take_rows


@register_format
@dataclass(frozen=True)
class Sparse(Format):
    """Unsigned codes with zero point 0 and one scale per row, zeros left out.

    A bag of words is 0/1, or 0/1 divided by the row's length: all codes of a row are then the same
    number and none is stored.

    Attributes:
        indptr: int64 ``[N + 1]``.
        indices: int32 ``[nnz]``, columns in ascending order within a row.
        values: uint8 ``[nnz]``, or None where each row has but one code.
        row_code: int32 ``[N]``, that code; the first of the row where ``values`` is given.
        row_sum: int32 ``[N]``, sum of the row's codes.
        bits: Width that a dense row of these codes would have, 1 to 8.
        num_cols: Columns.
    """

    name: ClassVar[str] = "sparse"
    layout: ClassVar[None] = None
    fields: ClassVar[Options] = {"bits": BITS, "num_cols": SIZE}
    packs_zeros: ClassVar[bool] = False
    indptr: Tensor
    indices: Tensor
    values: Tensor | None
    row_code: Tensor
    row_sum: Tensor
    bits: int
    num_cols: int
    _affine: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, found: SparseCodes, bits: int, num_cols: int) -> Sparse:
        """Of a scan of features."""
        return cls(*found, bits, num_cols)

    def check(self) -> None:
        """See :meth:`Format.check`.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
            NodeIndexError: If a column is outside ``[0, num_cols)``.
        """
        check_bits(self.bits, "bits of sparse rows")
        rows, found = self.indptr.numel() - 1, self.indices.numel()
        for name, part, dtype, length in (
            ("indptr", self.indptr, torch.int64, max(rows, 0) + 1),
            ("indices", self.indices, torch.int32, found),
            ("codes", self.values, torch.uint8, found),
            ("row_code", self.row_code, torch.int32, rows),
            ("row_sum", self.row_sum, torch.int32, rows),
        ):
            if part is not None and (part.dtype != dtype or tuple(part.shape) != (length,)):
                raise ShapeError(
                    f"{name} of sparse rows must be {dtype} [{length}], got {part.dtype} "
                    f"{list(part.shape)}"
                )
        check_within(self.indices, self.num_cols, "indices of sparse rows", "a matrix of columns")

    @property
    def shape(self) -> tuple[int, int]:
        return self.indptr.numel() - 1, self.num_cols

    @property
    def nbytes(self) -> int:
        parts = (self.indptr, self.indices, self.values, self.row_code, self.row_sum)
        return sum(part.nbytes for part in parts if part is not None)

    def selected(self, index: Tensor) -> Sparse:
        tables = (self.indices,) if self.values is None else (self.indices, self.values)
        indptr, indices, *values = take_lists(self.indptr, index, *tables)
        return Sparse(
            indptr,
            indices,
            values[0] if values else None,
            take_rows(self.row_code, index),
            take_rows(self.row_sum, index),
            self.bits,
            self.num_cols,
        )

    def codes(self, affine: Affine) -> Tensor:
        rows = torch.repeat_interleave(self.indptr.diff())
        values = self.row_code.to(torch.uint8)[rows] if self.values is None else self.values
        dense = torch.zeros(self.shape, dtype=torch.uint8, device=values.device)
        dense[rows, self.indices.long()] = values
        return dense

    def _turned(self, alpha: int, beta: int) -> tuple[Tensor | None, Tensor]:
        """What turns sums of ``u`` into sums of ``code * (alpha * u + beta)``.

        Returns:
            int32 ``[N]`` factors (None for 1) and int32 ``[N]`` summands.
        """
        if (alpha, beta) not in self._affine:
            code, total, factor = self.row_code, self.row_sum, None
            if self.values is None:
                factor = recorded("times", lambda: code * alpha, code, alpha)
            elif alpha != 1:
                factor = recorded("filled", lambda: torch.full_like(code, alpha), code, alpha)
            added = recorded("times", lambda: total * beta, total, beta)
            self._affine[alpha, beta] = (factor, added)
        return self._affine[alpha, beta]

    def product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Stage:
        """See :meth:`Format.product`: a sum over rows of the transposed weight.

        Its fields are unsigned there, ``u = c + 2^(b-1)``; the sums of the codes take the offset
        out again, in int32, so that the epilogue sees the integers of the dense product.
        """
        assert weight.bits is not None
        half = 1 << (weight.bits - 1)
        alpha, beta = (2, 1 - 2 * half) if weight.midrise else (1, -half)
        codes = None if self.values is None else self.values.view(-1, 1)
        # Fields that are multiplied take a byte each: a row of 64 then fills a register.
        bits = weight.bits if codes is None else 8
        records = (
            Edges(self.indptr, self.indices, codes),
            Source(weight.transposed(bits), bits, weight.num_rows),
            Own(*self._turned(alpha, beta)),
            Epilogue(weight.scale, row_scale=affine.row_scale, bias=bias),
        )
        return Stage(ops.fused_spmm, records, (self.shape[0], weight.num_rows), self.indptr.device)

    def parts(self, affine: Affine) -> tuple[dict[str, Any], dict[str, Tensor]]:
        short = self.num_cols <= 1 << 16
        parts = {
            "counts": self.indptr.diff().to(torch.int32),
            "indices": self.indices.to(torch.uint16) if short else self.indices,
            "row_code": self.row_code,
            "row_sum": self.row_sum,
            "scale": affine.scale,
        }
        if self.values is not None:
            parts["codes"] = self.values
        return {"bits": self.bits, "num_cols": self.num_cols}, parts

    @classmethod
    def read(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> tuple[Sparse, Affine]:
        counts, num_cols = parts["counts"].long(), int(about["num_cols"])
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        indices = parts["indices"].to(torch.int32)
        ops.validate_csr(indptr, indices, num_cols)
        found = SparseCodes(
            indptr, indices, parts.get("codes"), parts["row_code"], parts["row_sum"]
        )
        affine = Affine(parts["scale"], parts["scale"].new_zeros(1), 0)
        return cls.of(found, int(about["bits"]), num_cols), affine
