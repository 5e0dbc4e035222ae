"""Products and neighbour sums of packed rows of several widths; see :mod:`nodebits.core.bucketed`.

The part of :mod:`nodebits.nn.functional` that is about :class:`BucketedRows`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.bucketed import BucketedRows
from nodebits.core.errors import ConfigError
from nodebits.core.qtensor import QTensor
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.weight import PackedWeight
from nodebits.ops.autograd import neighbor_sum


def linear(rows: BucketedRows, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """``rows @ weight^T + bias``, one integer product per bucket; float32 ``[N, M]``.

    Raises:
        ConfigError: If the rows carry shifts, which only messages do.
    """
    if rows.shift is not None:
        raise ConfigError("rows with a power of two per row are messages: they enter no product")
    assert weight.bits is not None
    acc = torch.ops.nodebits.gemm_bucketed(
        rows.packed,
        rows.layout.order,
        list(rows.layout.counts),
        rows.num_cols,
        weight.packed,
        weight.bits,
        weight.midrise,
    )
    by_row = rows.axis == 0
    zero_point = rows.row_zero_point()
    offset = None if rows.zero_point.numel() == 1 and not bool(rows.zero_point) else zero_point
    result: Tensor = torch.ops.nodebits.rescale(
        acc,
        weight.scale if by_row else weight.scale * rows.scale,
        None if offset is None else weight.col_sum,
        None if offset is None else offset.contiguous(),
        rows.scale.view(-1, 1) if by_row else None,
        bias,
    )
    return result


def scores(rows: BucketedRows, weight: PackedWeight) -> Tensor:
    """Message codes, shifted, times attention vectors ``[2H, C]`` that hold the message's scale.

    Returns:
        float32 ``[N, 2H]``.
    """
    codes = torch.ops.nodebits.unpack_bucketed(
        rows.packed, rows.layout.order, list(rows.layout.counts), rows.num_cols, rows.shift
    )
    zero_point = rows.row_zero_point()
    if weight.bits is None:
        acc = codes.float() @ weight.codes().t()
        float_scores: Tensor = (acc - zero_point * weight.col_sum) * weight.scale
        return float_scores
    acc = torch.ops.nodebits.gemm(
        codes, 8, rows.num_cols, weight.packed, weight.bits, weight.midrise
    )
    result: Tensor = torch.ops.nodebits.rescale(
        acc, weight.scale, weight.col_sum, zero_point.contiguous(), None, None
    )
    return result


def shifted(rows: BucketedRows, graph: Graph, edge_weight: Tensor | None) -> tuple[QTensor, Tensor]:
    """Rows as one integer matrix of up to 8 bits, for the neighbour sum.

    ``(u - z_i) * 2^e_i`` summed over neighbours i is ``sum u * 2^e_i`` minus ``sum z_i * 2^e_i``:
    the codes are shifted in place, and the second sum, one value per target, takes the place of
    the degree in the epilogue.

    Args:
        rows: One scale per tensor or column.
        graph: Topology.
        edge_weight: Centred edge codes, float32 ``[E, H]``, or None.

    Returns:
        The transient 8-bit rows with zero point 1, and the row offset ``[num_dst, H]``.

    Raises:
        ConfigError: If every row has a scale of its own.
    """
    if rows.axis == 0:
        raise ConfigError(
            "the message site needs one scale per tensor or column: a scale per row commutes with "
            "the sum over rows only where it is a power of two (shift)"
        )
    codes = torch.ops.nodebits.unpack_bucketed(
        rows.packed, rows.layout.order, list(rows.layout.counts), rows.num_cols, rows.shift
    )
    one = torch.ones_like(rows.scale[:1])
    offset = zero_point_sum(rows.row_zero_point(), graph, edge_weight)
    return QTensor(codes, rows.scale, one, 8, rows.num_cols, rows.axis), offset


def zero_point_sum(zero_point: Tensor, graph: Graph, edge_weight: Tensor | None) -> Tensor:
    """Sum over neighbours of a zero point per row ``[N, 1]``: ``[num_dst, H]``."""
    heads = 1 if edge_weight is None else edge_weight.size(1)
    return neighbor_sum(zero_point.expand(-1, heads), graph, edge_weight)
