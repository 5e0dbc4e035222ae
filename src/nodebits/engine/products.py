"""Dense products of rows."""

from __future__ import annotations

from torch import Tensor

from nodebits import ops
from nodebits.core.errors import ShapeError
from nodebits.engine.chain import Producer
from nodebits.engine.epilogue import rescale
from nodebits.engine.pending import deliver
from nodebits.engine.rows import Rows
from nodebits.engine.stage import Stage, of_products, weight_record
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Epilogue
from nodebits.ops.autograd import dense_product


def product(
    rows: Rows,
    weight: PackedWeight,
    bias: Tensor | None,
    layer: Producer | None = None,
    row_factor: Tensor | None = None,
) -> Tensor:
    """``rows @ weight^T + bias``.

    Args:
        rows: ``[N, K]``.
        weight: ``[M, K]``.
        bias: float32 ``[M]`` or None.
        layer: Whose result it is, if it may wait for its reader (:mod:`nodebits.engine.pending`).
        row_factor: float32 ``[N, 1]``, by which the product is multiplied before the bias.

    Returns:
        float32 ``[N, M]``.

    Raises:
        ShapeError: If rows and weight have other numbers of columns.
    """
    if rows.num_cols != weight.num_cols:
        raise ShapeError(
            f"rows of {rows.num_cols} columns meet a weight of {weight.num_cols}: they were packed "
            "for another layer, or the layer's in_channels was changed"
        )
    if weight.bits is not None:
        stage = rows.data.product(rows.affine, weight, bias)
        if stage is not None and row_factor is not None:
            stage = _scaled(stage, row_factor)
        if stage is not None:
            return deliver(layer, stage)
    return _in_float(rows.settled(), weight, bias, row_factor)


def _scaled(stage: Stage, factor: Tensor) -> Stage | None:
    """A sum of products with one more factor of every row; None where it is no plain sum."""
    if stage.products is None:
        return None
    made = []
    for one in stage.products():
        scale = one.epilogue.row_scale
        scale = factor if scale is None else scale * factor
        made.append(one._replace(epilogue=one.epilogue._replace(row_scale=scale)))
    return of_products(made)


def _in_float(
    rows: Rows, weight: PackedWeight, bias: Tensor | None, row_factor: Tensor | None
) -> Tensor:
    """The product where one side stayed float, on a transient copy of the other."""
    codes = weight.codes()
    if rows.is_float or not rows.data.packs_zeros:
        acc = dense_product(rows.dequantize(), codes.t())
        return rescale(acc, weight.scale, None, None, row_factor, bias)
    affine = rows.affine
    acc = dense_product(rows.codes().float(), codes.t())
    offset = weight.col_sum * affine.offsets(rows.layout)
    row_scale = affine.row_scale
    if row_factor is not None:
        row_scale = row_factor if row_scale is None else row_scale * row_factor
    return rescale(acc, affine.columns(weight.scale), offset, None, row_scale, bias)


def scores(rows: Rows, weight: PackedWeight, offset: Tensor) -> Tensor:
    """Message codes times vectors that hold the scale of the messages.

    Args:
        rows: ``[N, C]``, one scale per tensor or column.
        weight: ``[2H, C]`` or ``[H, C]``.
        offset: float32 ``[2H]`` or ``[H]``: the vectors' share of the zero points of columns.

    Returns:
        float32 ``[N, 2H]`` or ``[N, H]``.
    """
    summands = rows.data.summands(rows.affine)
    if summands is None or weight.bits is None:
        acc = dense_product(rows.codes().float(), weight.codes().t())
        by_row = None if summands is None else summands.row_zero
        less = offset if by_row is None else by_row * weight.col_sum
        return (acc - less) * weight.scale
    acc = ops.gemm(summands.source, weight_record(weight))
    if summands.row_zero is None:
        return ops.rescale(acc, Epilogue(weight.scale, offset))
    return ops.rescale(acc, Epilogue(weight.scale, weight.col_sum, summands.row_zero))
