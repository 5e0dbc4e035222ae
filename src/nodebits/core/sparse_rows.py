"""Rows of which few codes are not zero: the columns and codes of those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.indices import check_within


@dataclass(frozen=True)
class SparseRows:
    """Unsigned codes with zero point 0 and one scale per row, zeros left out.

    A bag of words is 0/1, or 0/1 divided by the row's length: all codes of a row are then the same
    number and none is stored.

    Attributes:
        indptr: int64 ``[N + 1]``.
        indices: int32 ``[nnz]``, columns in ascending order within a row.
        codes: uint8 ``[nnz]``, or None where each row has but one code.
        row_code: int32 ``[N]``, that code; the first of the row where ``codes`` is given.
        row_sum: int32 ``[N]``, sum of the row's codes.
        scale: float32 ``[N]``.
        bits: Width that a dense row of these codes would have, 1 to 8.
        num_cols: Columns.
    """

    indptr: Tensor
    indices: Tensor
    codes: Tensor | None
    row_code: Tensor
    row_sum: Tensor
    scale: Tensor
    bits: int
    num_cols: int
    _affine: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ShapeError: If a shape or dtype is not as documented.
            NodeIndexError: If a column is outside ``[0, num_cols)``.
        """
        check_bits(self.bits, "SparseRows.bits")
        rows, found = self.indptr.numel() - 1, self.indices.numel()
        for name, part, dtype, length in (
            ("indptr", self.indptr, torch.int64, max(rows, 0) + 1),
            ("indices", self.indices, torch.int32, found),
            ("codes", self.codes, torch.uint8, found),
            ("row_code", self.row_code, torch.int32, rows),
            ("row_sum", self.row_sum, torch.int32, rows),
            ("scale", self.scale, torch.float32, rows),
        ):
            if part is not None and (part.dtype != dtype or tuple(part.shape) != (length,)):
                raise ShapeError(
                    f"SparseRows.{name} must be {dtype} [{length}], got {part.dtype} "
                    f"{list(part.shape)}"
                )
        check_within(self.indices, self.num_cols, "SparseRows.indices", "a matrix of columns")

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.indptr.numel() - 1

    @property
    def shape(self) -> tuple[int, int]:
        """``(num_rows, num_cols)``."""
        return self.num_rows, self.num_cols

    @property
    def nbytes(self) -> int:
        """Bytes of indices, codes and parameters together."""
        parts = (self.indptr, self.indices, self.codes, self.row_code, self.row_sum, self.scale)
        return sum(part.nbytes for part in parts if part is not None)

    def affine(self, alpha: int, beta: int) -> tuple[Tensor | None, Tensor]:
        """Turns sums of ``u`` into sums of ``code * (alpha * u + beta)``.

        Returns:
            int32 ``[N]`` factors (None for 1) and int32 ``[N]`` summands.
        """
        if (alpha, beta) not in self._affine:
            factor = None
            if self.codes is None:
                factor = self.row_code * alpha
            elif alpha != 1:
                factor = torch.full_like(self.row_code, alpha)
            self._affine[alpha, beta] = (factor, self.row_sum * beta)
        return self._affine[alpha, beta]

    def dense_codes(self) -> Tensor:
        """uint8 ``[N, num_cols]``."""
        counts = self.indptr.diff()
        rows = torch.repeat_interleave(torch.arange(self.num_rows), counts)
        values = self.row_code.to(torch.uint8)[rows] if self.codes is None else self.codes
        dense = torch.zeros(self.shape, dtype=torch.uint8)
        dense[rows, self.indices.long()] = values
        return dense

    def dequantize(self) -> Tensor:
        """float32 ``[N, num_cols]``: codes times the row's scale."""
        return self.dense_codes().float() * self.scale.view(-1, 1)
