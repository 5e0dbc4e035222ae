"""Extremes and statistics of neighbours, once for both forms of rows.

A dequantization with a positive scale is monotone: the largest code is that of the largest value,
per column too. A variance follows from the sums of codes and of their squares, exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.core.affine import Codes
from nodebits.engine.chain import Producer
from nodebits.engine.epilogue import rescale
from nodebits.engine.reductions import (
    check_statistics,
    comparable,
    extremum_rows,
    occupied,
    statistics_rows,
)
from nodebits.engine.rows import Rows
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, trained
from nodebits.ops import Statistic
from nodebits.ops.autograd import neighbor_sum
from nodebits.ops.definitions.reduce import deviation
from nodebits.ops.extremes import neighbor_extreme


def compares(rows: AnyRows) -> bool:
    """Whether codes of these rows may be compared, and squared, in place of their values.

    Not those with a scale or a zero point per row; floats may.
    """
    if rows.is_float:
        return True
    packed = _packed(rows)
    if packed is not None:
        return comparable(packed) is not None
    return rows.scale.dim() < 2 and rows.zero_point.dim() < 2


def _packed(rows: AnyRows) -> Rows | None:
    return rows if isinstance(rows, Rows) else None


def extremum(
    rows: AnyRows, graph: Graph, smallest: bool = False, *, layer: Producer | None = None
) -> Tensor:
    """The largest or smallest of every target's neighbours, by column; 0 where there are none.

    Args:
        rows: ``[num_src, C]``, decoded first where :func:`compares` does not hold.
        graph: Topology.
        smallest: Whether the smallest is taken.
        layer: Whose result it is, if it may wait for its reader (:mod:`nodebits.engine.pending`).

    Returns:
        float32 ``[num_dst, C]``.
    """
    packed = _packed(rows)
    summands = None if packed is None else comparable(packed)
    if packed is not None and summands is not None:
        return extremum_rows(packed, summands, graph, smallest, layer)
    if packed is not None or rows.is_float or not compares(rows):
        return neighbor_extreme(rows.dequantize(), graph, smallest)
    acc = neighbor_extreme(rows.float_codes(), graph, smallest)
    return rescale(acc, rows.scale, rows.zero_point, occupied(graph), None, None)


def statistics(
    rows: AnyRows, graph: Graph, kinds: Sequence[Statistic], moved: Tensor | None = None
) -> Tensor:
    """Statistics of every target's neighbours, by column, from one pass over the edges.

    Args:
        rows: ``[num_src, C]``, decoded first where :func:`compares` does not hold.
        graph: Topology.
        kinds: K of them.
        moved: float32 ``[num_dst, C]``, added to what every neighbour has, or None.

    Returns:
        float32 ``[num_dst, K * C]``, the columns of each side by side; 0 for targets without edges.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
    """
    packed = _packed(rows)
    summands = None if packed is None else comparable(packed)
    if packed is not None and summands is not None:
        return statistics_rows(packed, summands, graph, kinds, moved)
    if packed is not None or rows.is_float or not compares(rows):
        plain = rows.dequantize()
        rows = Codes(plain, plain.new_ones(1), plain.new_zeros(1), None)
    elif rows.bits is not None:
        check_statistics(graph, rows.bits, kinds)
    codes = trained(rows)
    parts = [_moved(_statistic(codes, graph, kind), graph, kind, moved) for kind in kinds]
    return torch.cat(parts, 1)


def _moved(value: Tensor, graph: Graph, kind: Statistic, moved: Tensor | None) -> Tensor:
    """A statistic of values to each of which something of the target is added."""
    if moved is None or kind in (Statistic.VAR, Statistic.STD):
        return value
    times = graph.degree.view(-1, 1) if kind == Statistic.SUM else occupied(graph)
    return value + moved * times


def _statistic(rows: Codes, graph: Graph, kind: Statistic) -> Tensor:
    if kind in (Statistic.MAX, Statistic.MIN):
        return extremum(rows, graph, kind == Statistic.MIN)
    inverse = graph.inverse_degree.view(-1, 1)
    if kind in (Statistic.SUM, Statistic.MEAN):
        offset = None if rows.is_float else rows.zero_point
        row_scale = inverse if kind == Statistic.MEAN else None
        acc = neighbor_sum(rows.codes, graph)
        return rescale(acc, rows.scale, offset, graph.degree.view(-1, 1), row_scale, None)
    # In float64, for float32 holds no sum of squares that is worth the name.
    codes = rows.codes.double()
    total, squares = neighbor_sum(codes, graph), neighbor_sum(codes.square(), graph)
    spread = graph.degree.double().view(-1, 1) * squares - total.square()
    variance = spread.float() * inverse * inverse * rows.scale * rows.scale
    return variance if kind == Statistic.VAR else deviation(variance)
