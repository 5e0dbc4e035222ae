"""Operators called with the fields of their records one after another, as cases hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nodebits import ops
from nodebits.core.own_scale import OwnScale
from nodebits.ops import (
    Edges,
    Epilogue,
    Mixed,
    Output,
    Own,
    Product,
    Rounds,
    Sink,
    Source,
    Steps,
    Weight,
)
from nodebits.ops.feature_product import FeatureProduct
from nodebits.ops.feature_product import fused_gemm_features as _features


def gather_rows(packed: Tensor, bits: int, num_cols: int, *rest: Any) -> Tensor:
    return ops.gather_rows(Source(packed, bits, num_cols), *rest)


def gemm(packed: Tensor, bits: int, num_cols: int, *weight: Any) -> Tensor:
    return ops.gemm(Source(packed, bits, num_cols), Weight(*weight))


def spmm(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, blocks: Any = None
) -> Tensor:
    return ops.spmm(Edges(indptr, indices, None, blocks), Source(packed, bits, num_cols))


def spmm_weighted(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, weight: Tensor
) -> Tensor:
    return ops.spmm(Edges(indptr, indices, weight), Source(packed, bits, num_cols))


def rescale(acc: Tensor, *epilogue: Any) -> Tensor:
    return ops.rescale(acc, Epilogue(*epilogue))


def unpack_bucketed(
    packed: Tensor, order: Tensor, counts: list[int], num_cols: int, shift: Tensor | None = None
) -> Tensor:
    return ops.unpack_bucketed(Mixed(packed, order, counts, num_cols), shift)


def sink(relu: bool, *fields: Any) -> Sink:
    """From scales, zero points, widths, row factors; then widths, positions and shifts, which may
    be missing or empty; then an affine."""
    quantizers: list[Sequence[Any]] = [*fields[:4]]
    for i in (4, 5, 6):
        given = fields[i] if len(fields) > i else []
        quantizers.append(given or [None] * len(fields[2]))
    outputs = [Output(*one) for one in zip(*quantizers, strict=True)]
    return Sink(relu, outputs, *fields[7:])


def fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    acc_scale, acc_offset, *epilogue = rest[:7]
    return ops.fused_spmm(
        Edges(indptr, indices, weight, blocks),
        Source(packed, bits, num_cols),
        Own(acc_scale, acc_offset, *rest[7:9]),
        Epilogue(*epilogue),
        sink(*rest[9:]),
    )


def products(
    packed: list[Tensor],
    bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Any],
    row_scale: list[Any],
    bias: list[Any],
) -> list[Product]:
    return [
        Product(Source(x, b, k), Weight(w, wb, m), Epilogue(s, o, None, r, added))
        for x, b, k, w, wb, m, s, o, r, added in zip(
            packed, bits, num_cols, w_packed, w_bits, midrise, col_scale, col_offset, row_scale,
            bias, strict=True,
        )
    ]  # fmt: skip


def fused_gemm(*args: Any) -> list[Tensor]:
    return ops.fused_gemm(products(*args[:10]), sink(*args[10:]))


def fused_gemm_bucketed(*args: Any) -> list[Tensor]:
    epilogue = Epilogue(*args[7:12])
    return ops.fused_gemm_bucketed(Mixed(*args[:4]), Weight(*args[4:7]), epilogue, sink(*args[12:]))


def fused_gemm_features(
    x: Tensor,
    bits: int,
    symmetric: bool,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Any,
    bias: Any,
    *rest: Any,
) -> FeatureProduct:
    weight, epilogue = Weight(w_packed, w_bits, midrise), Epilogue(col_scale, col_offset, bias=bias)
    return _features(x, OwnScale(bits, symmetric), weight, epilogue, sink(*rest))


def propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: list[int],
    coefficients: list[float],
    laplacian: bool = False,
    teleport: float = 0.1,
    blocks: Tensor | None = None,
) -> Tensor:
    rounds = Rounds(scale, zero_point, made_with, bits)
    steps = Steps(coefficients, laplacian, teleport)
    return ops.propagate(Edges(indptr, indices, None, blocks), x, factor, rounds, steps)
