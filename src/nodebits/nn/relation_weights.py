"""Weights of relations: a matrix of codes for each, made of whatever the layer holds.

A relation's matrix is a product operand, or, where nodes come by number, a table of rows: column o
of the matrix's transpose has the scale of output channel o, and so do the rows of the table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.engine.rows import Rows
from nodebits.engine.weight import PackedWeight
from nodebits.nn.functional import AnyRows
from nodebits.nn.quantizers.weight import FloatWeightQuantizer, WeightCodes, WeightQuantizer
from nodebits.ops.autograd import dense_product

AnyWeight = WeightCodes | PackedWeight


def relation_matrices(module: Any) -> Tensor:
    """Weights of all relations of an RGCN layer, float32 ``[R, M, K]``.

    Those of a basis are combined; those of blocks stand one below the other, ``K`` being the width
    of a block.
    """
    weight, comp = module.weight, module.comp
    if comp is not None:
        weight = dense_product(comp, weight.flatten(1)).view(-1, *weight.shape[1:])
    made: Tensor = weight.transpose(-1, -2)
    return made.flatten(1, 2) if made.dim() == 4 else made


def weight_part(weight: AnyWeight, begin: int, end: int) -> AnyWeight:
    """Some output channels.

    Args:
        weight: ``[M, K]``.
        begin: First channel.
        end: Last channel, exclusive.
    """
    if not isinstance(weight, PackedWeight):
        scale = weight.scale if weight.scale.numel() == 1 else weight.scale[begin:end]
        return WeightCodes(weight.codes[begin:end], scale)
    return PackedWeight(
        weight.packed[begin:end],
        weight.scale[begin:end],
        bits=weight.bits,
        num_cols=weight.num_cols,
        midrise=weight.midrise,
        col_sum=weight.col_sum[begin:end],
    )


def table_rows(
    weight: AnyWeight, site: WeightQuantizer | PackedWeight, nodes: Tensor | None
) -> AnyRows:
    """Rows of the transposed weight, with a scale per column.

    Args:
        weight: ``[M, K]``.
        site: What made it.
        nodes: int64 ``[N]``, numbers of rows; None for all, in order.

    Returns:
        ``[N, M]``.
    """
    if isinstance(weight, PackedWeight):
        return _packed_table(weight, nodes)
    codes, scale = weight.codes.t(), weight.scale
    codes = codes if nodes is None else codes.index_select(0, nodes)
    assert isinstance(site, WeightQuantizer)
    if isinstance(site, FloatWeightQuantizer):
        return Codes(codes, scale, torch.zeros_like(scale[:1]), None)
    center = torch.full_like(scale[:1], site.center)
    if site.midrise:
        return Codes(codes / 2 + site.center, scale * 2, center, site.bits)
    return Codes(codes + site.center, scale, center, site.bits)


def _packed_table(weight: PackedWeight, nodes: Tensor | None) -> Rows:
    if weight.bits is None:
        values = weight.packed.t()
        return Rows.of_floats(values if nodes is None else values.index_select(0, nodes))
    half = 1 << (weight.bits - 1)
    zero = half - 0.5 if weight.midrise else float(half)
    scale = weight.scale * 2 if weight.midrise else weight.scale
    zero_point = torch.full_like(scale[:1], zero)
    packed = weight.transposed(weight.bits)
    if nodes is not None:
        # torch's operator: a plan has a step of it.
        packed = packed.index_select(0, nodes)
    return Rows.dense(packed, weight.bits, weight.num_rows, scale, zero_point, 1)
