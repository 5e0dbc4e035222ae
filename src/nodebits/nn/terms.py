"""What a frozen layer computes, not computed yet: neighbour sums and dense products.

Each holds the records of its fused operator but the sink, which says what reads the result;
:mod:`nodebits.nn.chain` adds that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.observer import check_finite
from nodebits.core.qtensor import QTensor
from nodebits.nn.quantizers.rows import FEATURES, FeatureRows
from nodebits.nn.quantizers.weight import PackedWeight
from nodebits.ops import Edges, Epilogue, Mixed, Own, Product, Sink, Source, Weight
from nodebits.ops.feature_product import fused_gemm_features


class SumTerm(NamedTuple):
    """A neighbour sum."""

    edges: Edges
    source: Source
    epilogue: Epilogue
    own: Own = Own()

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.edges.num_rows, self.source.num_cols

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.source.packed.device

    def run(self, sink: Sink) -> list[Tensor]:
        """What the sink's quantizers make of it, or its float rows."""
        return ops.fused_spmm(self.edges, self.source, self.own, self.epilogue, sink)


class BucketedTerm(NamedTuple):
    """A dense product of rows of several widths."""

    source: Mixed
    weight: Weight
    epilogue: Epilogue

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return self.source.order.size(0), self.weight.w_packed.size(0)

    @property
    def device(self) -> torch.device:
        """Of the result."""
        return self.source.packed.device

    def run(self, sink: Sink) -> list[Tensor]:
        """What the sink's quantizers make of it, or its float rows."""
        return ops.fused_gemm_bucketed(self.source, self.weight, self.epilogue, sink)


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

    def run(self, sink: Sink) -> list[Tensor]:
        """What the sink's quantizers make of it, or its float rows.

        Raises:
            NonFiniteError: If a feature is NaN or infinite.
        """
        x, site, weight = self.rows.x, self.rows.site, self.weight
        if self.rows.packed is not None:
            return ops.fused_gemm([self.packed()], sink)
        bits = int(site.bits or 0)
        offset = weight.col_sum * float(1 << (bits - 1)) if site.signed else None
        epilogue = Epilogue(weight.scale, offset, bias=self.bias)
        made = fused_gemm_features(x, bits, site.signed, factor_of(weight), epilogue, sink)
        if not made.finite:
            check_finite(x, FEATURES)
        if made.negative and not site.signed:
            return ops.fused_gemm([self.packed()], sink)
        return made.results

    def packed(self) -> Product:
        """The same product of packed rows."""
        return product_of(self.rows.settle(), self.weight, self.bias)


def source_of(rows: QTensor) -> Source:
    """Rows as operators read them."""
    return Source(rows.packed, rows.bits, rows.num_cols)


def factor_of(weight: PackedWeight) -> Weight:
    """A weight as operators read it."""
    assert weight.bits is not None
    return Weight(weight.packed, weight.bits, weight.midrise)


def product_of(rows: QTensor, weight: PackedWeight, bias: Tensor | None) -> Product:
    """``rows @ weight^T + bias``."""
    by_row = rows.axis == 0
    epilogue = Epilogue(
        weight.scale if by_row else weight.scale * rows.scale,
        weight.col_sum * rows.zero_point,
        None,
        rows.scale.view(-1, 1) if by_row else None,
        bias,
    )
    return Product(source_of(rows), factor_of(weight), epilogue)


Term = SumTerm | Product | BucketedTerm | FeatureTerm
