"""Fused operators: an integer product, its epilogue, and the quantizers that read the result.

Between the packed rows that go in and those that come out only a tile of int32 and float32 exists,
in the cache. Bit for bit the result of the operators one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, check_bits
from nodebits.core.errors import ShapeError
from nodebits.ops import checks, reference
from nodebits.ops.backend import kernels_for
from nodebits.ops.cpu import check_neighbor_sum, check_product, register
from nodebits.ops.features import scan_features
from nodebits.ops.finish import Optionals, check_finish, of_rows, outputs


@register
def fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None,
    acc_scale: Tensor | None,
    acc_offset: Tensor | None,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    own: Tensor | None,
    own_factor: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: Optionals,
    widths: Optionals,
    position: Optionals,
    shift: Optionals,
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """See ``nodebits.ops.fused_spmm``."""
    indptr, indices, packed, weight, blocks = check_neighbor_sum(
        indptr, indices, packed, bits, num_cols, weight, blocks
    )
    rows = indptr.numel() - 1
    acc_scale = of_rows(acc_scale, "acc_scale", torch.int32, rows)
    acc_offset = of_rows(acc_offset, "acc_offset", torch.int32, rows)
    col_scale, col_offset, bias = checks.epilogue_columns(col_scale, col_offset, bias, num_cols)
    row_offset, row_scale, heads = checks.row_factors((rows, num_cols), row_offset, row_scale)
    if (own is None) != (own_factor is None):
        raise ShapeError("own and own_factor come together")
    if own is not None and own_factor is not None:
        own = checks.packed_rows(own, "own", bits, num_cols)
        if own.size(0) != rows:
            raise ShapeError(f"own has {own.size(0)} rows, the sum {rows}")
        dense = own_factor.dtype == torch.float32 and own_factor.layout == torch.strided
        if not dense or own_factor.numel() != 1:
            raise ShapeError("own_factor must be one float32 value")
        own_factor = checks.plain(own_factor.reshape(1))
    finish = check_finish(
        rows, num_cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift,
        post_scale, post_shift,
    )  # fmt: skip
    tensors = (acc_scale, acc_offset, col_scale, col_offset, row_offset, row_scale, bias, own)
    checks.same_device(
        ("packed", packed),
        *(("an argument", t) for t in (*tensors, own_factor)),
        *finish.tensors(),
    )
    kernels = kernels_for(packed)
    if kernels is None:
        y = reference.fused_spmm(
            indptr, indices, packed, bits, num_cols, weight, *tensors, own_factor
        )
        return reference.finish(y, *finish)
    out = outputs(rows, num_cols, packed, finish, kernels, indices.numel() / max(rows, 1))
    threads = torch.get_num_threads()
    factor = 0.0 if own_factor is None else float(own_factor)
    kernels.fused_spmm(
        indptr, indices, packed, bits, num_cols, weight, blocks, *tensors, factor, heads, *finish,
        out, threads,
    )  # fmt: skip
    return out


@register
def fused_gemm(
    x_packed: list[Tensor],
    x_bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Tensor | None],
    row_scale: list[Tensor | None],
    bias: list[Tensor | None],
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: Optionals,
    widths: Optionals,
    position: Optionals,
    shift: Optionals,
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """See ``nodebits.ops.fused_gemm``."""
    per_product: tuple[Sequence[object], ...] = (
        x_packed, x_bits, num_cols, w_packed, w_bits, midrise, col_scale, col_offset, row_scale,
        bias,
    )  # fmt: skip
    if not x_packed or any(len(part) != len(x_packed) for part in per_product):
        raise ShapeError("every argument of a product needs one entry per product")
    x, w, col_s, col_o, row_s, biases = [], [], [], [], [], []
    rows, cols = x_packed[0].size(0), w_packed[0].size(0)
    for i in range(len(x_packed)):
        checked = check_product(
            x_packed[i], x_bits[i], num_cols[i], w_packed[i], w_bits[i], midrise[i]
        )
        x.append(checked[0])
        w.append(checked[1])
        if checked[0].size(0) != rows or checked[1].size(0) != cols:
            raise ShapeError(
                f"product {i} has {checked[0].size(0)} x {checked[1].size(0)} results, the first "
                f"{rows} x {cols}"
            )
        columns = checks.epilogue_columns(col_scale[i], col_offset[i], bias[i], cols)
        col_s.append(columns[0])
        col_o.append(columns[1])
        biases.append(columns[2])
        row = row_scale[i]
        if row is not None:
            row = checks.row_factors((rows, cols), None, row)[1]
            assert row is not None
            if row.size(1) != 1:
                raise ShapeError("row_scale of a product has one value per row")
        row_s.append(row)
    finish = check_finish(
        rows, cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift,
        post_scale, post_shift,
    )  # fmt: skip
    parts = (*x, *w, *col_s, *col_o, *row_s, *biases)
    checks.same_device(("x_packed", x[0]), *(("an argument", t) for t in parts), *finish.tensors())
    products = (x, x_bits, num_cols, w, w_bits, midrise, col_s, col_o, row_s, biases)
    kernels = kernels_for(x[0])
    if kernels is None:
        return reference.finish(reference.fused_gemm(*products), *finish)
    out = outputs(rows, cols, x[0], finish, kernels, sum(num_cols) / 4)
    kernels.fused_gemm(*products, *finish, out, torch.get_num_threads())
    return out


@register
def fused_gemm_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: list[int],
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: Optionals,
    widths: Optionals,
    position: Optionals,
    shift: Optionals,
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    """See ``nodebits.ops.fused_gemm_bucketed``."""
    order = checks.buckets(order, counts)
    packed = checks.bucketed(packed, counts, num_cols)
    w_packed = checks.weight_rows(w_packed, w_bits, num_cols, midrise)
    rows, cols = order.numel(), w_packed.size(0)
    col_scale, col_offset, bias = checks.epilogue_columns(col_scale, col_offset, bias, cols)
    row_offset, row_scale, heads = checks.row_factors((rows, cols), row_offset, row_scale)
    if heads != 1:
        raise ShapeError("row_offset and row_scale of a product have one value per row")
    finish = check_finish(
        rows, cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift,
        post_scale, post_shift,
    )  # fmt: skip
    epilogue = (col_scale, col_offset, row_offset, row_scale, bias)
    checks.same_device(
        ("packed", packed),
        *(("an argument", t) for t in (order, w_packed, *epilogue)),
        *finish.tensors(),
    )
    product = (packed, order, counts, num_cols, w_packed, w_bits, midrise, *epilogue)
    kernels = kernels_for(packed)
    if kernels is None:
        return reference.finish(reference.fused_gemm_bucketed(*product), *finish)
    out = outputs(rows, cols, packed, finish, kernels, num_cols / 4)
    kernels.fused_gemm_bucketed(*product, *finish, out, torch.get_num_threads())
    return out


class FeatureProduct(NamedTuple):
    """What :func:`fused_gemm_features` returns.

    Attributes:
        results: As of the fused operators; worth nothing where a flag speaks against them.
        finite: Whether all values are.
        negative: Whether a value is below zero, for which unsigned codes have other scales.
    """

    results: list[Tensor]
    finite: bool
    negative: bool


def fused_gemm_features(
    x: Tensor,
    x_bits: int,
    symmetric: bool,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    bias: Tensor | None,
    *given: Any,
) -> FeatureProduct:
    """:func:`nodebits.ops.fused_gemm` of raw features, packed a few rows at a time.

    Every row has the scale of :func:`nodebits.ops.features.scan_features`. No operator, since what
    it returns depends on the values.

    Args:
        x: float32 ``[N, K]``.
        x_bits: Width of the codes, 1 to 8.
        symmetric: Codes around ``2^(x_bits-1)`` instead of unsigned ones.
        w_packed: As in ``fused_gemm``; likewise the next two.
        w_bits: See ``fused_gemm``.
        midrise: See ``fused_gemm``.
        col_scale: As in ``fused_gemm``; likewise the next two.
        col_offset: See ``fused_gemm``.
        bias: See ``fused_gemm``.
        *given: ReLU, quantizers and what is between them, as in ``fused_gemm``.
    """
    check_bits(x_bits, "x_bits")
    x = checks.tensor(x, "x", torch.float32, 2)
    rows, depth = x.shape
    w_packed = checks.weight_rows(w_packed, w_bits, depth, midrise)
    cols = w_packed.size(0)
    epilogue = checks.epilogue_columns(col_scale, col_offset, bias, cols)
    finish = check_finish(rows, cols, *given)
    checks.same_device(
        ("x", x), *(("an argument", t) for t in (w_packed, *epilogue)), *finish.tensors()
    )
    kernels = kernels_for(x)
    if kernels is None:
        scan = scan_features(x, x_bits, symmetric, 0.0)
        assert scan.packed is not None
        acc = reference.gemm(scan.packed, x_bits, depth, w_packed, w_bits, midrise)
        scale, offset, bias = epilogue
        y = reference.rescale(acc, scale, offset, None, scan.scale.view(-1, 1), bias)
        return FeatureProduct(reference.finish(y, *finish), scan.finite, scan.negative)
    out = outputs(rows, cols, x, finish, kernels, depth / 4)
    negative, finite = kernels.fused_gemm_features(
        x, x_bits, symmetric, MIN_SCALE, x.new_empty(rows), w_packed, w_bits, midrise, *epilogue,
        *finish, out, torch.get_num_threads(),
    )  # fmt: skip
    return FeatureProduct(out, finite, negative)
