"""What a frozen layer computes, not computed yet: neighbour sums and dense products.

Each holds the arguments of its fused operator but the last ones, which say what reads the result;
:mod:`nodebits.nn.chain` adds those.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.observer import check_finite
from nodebits.core.qtensor import QTensor
from nodebits.nn.quantizers.rows import FEATURES, FeatureRows
from nodebits.nn.quantizers.weight import PackedWeight
from nodebits.ops.fused import fused_gemm_features


class SumTerm(NamedTuple):
    """A neighbour sum; the fields are the first arguments of ``nodebits::fused_spmm``."""

    indptr: Tensor
    indices: Tensor
    packed: Tensor
    bits: int
    num_cols: int
    weight: Tensor | None
    blocks: Tensor | None
    acc_scale: Tensor | None
    acc_offset: Tensor | None
    col_scale: Tensor
    col_offset: Tensor | None
    row_offset: Tensor | None
    row_scale: Tensor | None
    bias: Tensor | None
    own: Tensor | None = None
    own_factor: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.indptr.size(0) - 1, self.num_cols

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.packed.device


class ProductTerm(NamedTuple):
    """A dense product; the fields are one entry each of the lists of ``nodebits::fused_gemm``."""

    x_packed: Tensor
    x_bits: int
    num_cols: int
    w_packed: Tensor
    w_bits: int
    midrise: bool
    col_scale: Tensor
    col_offset: Tensor | None
    row_scale: Tensor | None
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.x_packed.size(0), self.w_packed.size(0)

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.x_packed.device


class BucketedTerm(NamedTuple):
    """A dense product of rows of several widths: arguments of ``nodebits::fused_gemm_bucketed``."""

    packed: Tensor
    order: Tensor
    counts: list[int]
    num_cols: int
    w_packed: Tensor
    w_bits: int
    midrise: bool
    col_scale: Tensor
    col_offset: Tensor | None
    row_offset: Tensor | None
    row_scale: Tensor | None
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.order.size(0), self.w_packed.size(0)

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.packed.device


class FeatureTerm(NamedTuple):
    """A dense product of raw features, which are packed while they are multiplied."""

    rows: FeatureRows
    weight: PackedWeight
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.rows.x.size(0), self.weight.num_rows

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.rows.x.device

    def run(self, *finish: Any) -> list[Tensor]:
        """See :meth:`Chain.run`.

        Raises:
            NonFiniteError: If a feature is NaN or infinite.
        """
        x, site, weight = self.rows.x, self.rows.site, self.weight
        assert weight.bits is not None
        if self.rows.packed is not None:
            return self._product(*finish)
        bits = int(site.bits or 0)
        offset = weight.col_sum * float(1 << (bits - 1)) if site.signed else None
        made = fused_gemm_features(
            x, bits, site.signed, weight.packed, weight.bits, weight.midrise, weight.scale, offset,
            self.bias, *finish,
        )  # fmt: skip
        if not made.finite:
            check_finite(x, FEATURES)
        if made.negative and not site.signed:
            return self._product(*finish)
        return made.results

    def _product(self, *finish: Any) -> list[Tensor]:
        products = [[part] for part in self.packed()]
        out: list[Tensor] = torch.ops.nodebits.fused_gemm(*products, *finish)
        return out

    def packed(self) -> ProductTerm:
        """The same product of packed rows."""
        return product_of(self.rows.settle(), self.weight, self.bias)


def product_of(rows: QTensor, weight: PackedWeight, bias: Tensor | None) -> ProductTerm:
    """``rows @ weight^T + bias``."""
    assert weight.bits is not None
    by_row = rows.axis == 0
    return ProductTerm(
        rows.packed,
        rows.bits,
        rows.num_cols,
        weight.packed,
        weight.bits,
        weight.midrise,
        weight.scale if by_row else weight.scale * rows.scale,
        weight.col_sum * rows.zero_point,
        rows.scale.view(-1, 1) if by_row else None,
        bias,
    )


Term = SumTerm | ProductTerm | BucketedTerm | FeatureTerm
