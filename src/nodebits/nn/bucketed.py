"""Products and neighbour sums of packed rows of several widths; see :mod:`nodebits.core.bucketed`.

The part of :mod:`nodebits.nn.functional` that is about :class:`BucketedRows`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.bucketed import AlignedRows, BucketedRows
from nodebits.core.errors import ConfigError
from nodebits.core.qtensor import QTensor
from nodebits.graph.csr import Graph
from nodebits.nn.quantizers.weight import PackedWeight
from nodebits.nn.terms import BucketedTerm, factor_of
from nodebits.ops import Epilogue, Mixed, Source
from nodebits.ops.autograd import dense_product, neighbor_sum


def product(rows: BucketedRows, weight: PackedWeight, bias: Tensor | None) -> BucketedTerm:
    """``rows @ weight^T + bias``, one integer product per bucket.

    Raises:
        ConfigError: If the rows carry shifts, which only messages do.
    """
    if rows.shift is not None:
        raise ConfigError("rows with a power of two per row are messages: they enter no product")
    by_row = rows.axis == 0
    unsigned = float(rows.zero_point[-1]) == 0.0  # as for every width
    epilogue = Epilogue(
        weight.scale if by_row else weight.scale * rows.scale,
        None if unsigned else weight.col_sum,
        None if unsigned else rows.row_zero_point(),
        rows.scale.view(-1, 1) if by_row else None,
        bias,
    )
    return BucketedTerm(_mixed(rows), factor_of(weight), epilogue)


def _mixed(rows: BucketedRows) -> Mixed:
    layout = rows.layout
    return Mixed(rows.packed, layout.order, list(layout.counts), rows.num_cols)


def align(rows: BucketedRows | AlignedRows) -> AlignedRows:
    """Message rows as bytes; a transient copy where they are packed.

    Raises:
        ConfigError: If every row has a scale of its own.
    """
    if isinstance(rows, AlignedRows):
        return rows
    if rows.axis == 0:
        raise ConfigError(
            "the message site needs one scale per tensor or column: a scale per row commutes with "
            "the sum over rows only where it is a power of two (shift)"
        )
    codes = _codes(rows, rows.shift)
    return AlignedRows(codes, rows.layout, rows.scale, rows.zero_point, rows.axis, rows.shift)


def dequantize(rows: BucketedRows) -> Tensor:
    """:meth:`BucketedRows.dequantize`, by the operator."""
    return rows.values_of(_codes(rows, None))


def _codes(rows: BucketedRows, shift: Tensor | None) -> Tensor:
    return ops.unpack_bucketed(_mixed(rows), shift)


def scores(rows: AlignedRows, weight: PackedWeight) -> Tensor:
    """Message codes times attention vectors ``[2H, C]`` that hold the message's scale.

    Returns:
        float32 ``[N, 2H]``.
    """
    zero_point = rows.row_zero_point()
    if weight.bits is None:
        acc = dense_product(rows.codes.float(), weight.codes().t())
        float_scores: Tensor = (acc - zero_point * weight.col_sum) * weight.scale
        return float_scores
    acc = ops.gemm(Source(rows.codes, 8, rows.num_cols), factor_of(weight))
    return ops.rescale(acc, Epilogue(weight.scale, weight.col_sum, zero_point))


def summands(rows: AlignedRows, graph: Graph, edge_weight: Tensor | None) -> tuple[QTensor, Tensor]:
    """Rows as the neighbour sum reads them.

    ``(u - z_i) * 2^e_i`` summed over neighbours i is ``sum u * 2^e_i`` minus ``sum z_i * 2^e_i``:
    the second sum, one value per target, takes the place of the degree in the epilogue.

    Args:
        rows: One scale per tensor or column.
        graph: Topology.
        edge_weight: Centred edge codes, float32 ``[E, H]``, or None.

    Returns:
        8-bit rows with zero point 1, and the row offset ``[num_dst, H]``.
    """
    one = torch.ones_like(rows.scale[:1])
    codes = QTensor(rows.codes, rows.scale, one, 8, rows.num_cols, rows.axis)

    def offset() -> Tensor:
        return zero_point_sum(rows.row_zero_point(), graph, edge_weight)

    if edge_weight is not None or rows.shift is None:
        return codes, offset()
    # A bound site has the same shifts (and widths) every time: the sum is what it was.
    return codes, graph.cached_for(rows.shift, "zero points", offset, owned=True)


def zero_point_sum(zero_point: Tensor, graph: Graph, edge_weight: Tensor | None) -> Tensor:
    """Sum over neighbours of a zero point per row ``[N, 1]``: ``[num_dst, H]``."""
    heads = 1 if edge_weight is None else edge_weight.size(1)
    return neighbor_sum(zero_point.expand(-1, heads), graph, edge_weight)
