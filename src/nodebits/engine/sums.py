"""Neighbour sums of rows: exact on codes, rescaled once per output."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from nodebits import ops
from nodebits.core.recorded import recorded
from nodebits.engine.chain import Producer
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.epilogue import rescale
from nodebits.engine.formats import Summands
from nodebits.engine.pending import deliver
from nodebits.engine.rows import Rows
from nodebits.engine.stage import Stage
from nodebits.graph.csr import Graph
from nodebits.ops import Edges, Epilogue, Own
from nodebits.ops.autograd import neighbor_sum


class Addition(NamedTuple):
    """What follows a sum, as :func:`nodebits.nn.functional.aggregate` is told it.

    ``row_scale`` is ``[num_dst, H]`` here, and ``own`` has rows.
    """

    row_scale: Tensor | None = None
    bias: Tensor | None = None
    own: Rows | None = None
    own_factor: Tensor | None = None
    layer: Producer | None = None


def aggregate_rows(rows: Rows, graph: Graph, edges: EdgeCodes | None, then: Addition) -> Tensor:
    """See :func:`nodebits.nn.functional.aggregate`."""
    row_scale, bias, own, own_factor, layer = then
    summands = rows.data.summands(rows.affine)
    joins = summands is not None and summands.row_zero is None
    if own is not None and own_factor is not None and not joins:
        out = aggregate_rows(rows, graph, edges, Addition(row_scale, bias))
        return out + own_factor * own.dequantize()
    if summands is None:
        return _sum_of_floats(rows.codes(), graph, edges, row_scale, bias)
    row_offset = graph.degree.view(-1, 1) if edges is None else edges.row_sum
    if summands.row_zero is not None:
        row_offset = _row_zeros(summands, graph, edges)
    scale = rows.scale if edges is None or edges.scale is None else rows.scale * edges.scale
    if edges is not None and not edges.are_codes:
        # Edge weights left in float: the sum runs in float on a transient copy of the codes.
        acc = neighbor_sum(rows.codes().float(), graph, edges.codes)
        return rescale(acc, scale, summands.zero_point, row_offset, row_scale, bias)
    graph.check_accumulator((1 << summands.source.bits) - 1, 1 if edges is None else edges.max_code)
    epilogue = Epilogue(scale, summands.zero_point, row_offset, row_scale, bias)
    if edges is not None and edges.zero_point:
        return _centred_sum(summands, graph, edges, epilogue)
    source = summands.source
    blocks = graph.blocks(source.packed.size(1)) if edges is None else None
    mine = None if own is None else own.data.summands(own.affine)
    records = (
        Edges(graph.indptr, graph.indices, None if edges is None else edges.codes, blocks),
        source,
        Own() if mine is None else Own(own=mine.source.packed, own_factor=own_factor),
        epilogue,
    )
    shape = graph.num_dst, source.num_cols
    return deliver(layer, Stage(ops.fused_spmm, records, shape, source.packed.device))


def _sum_of_floats(
    values: Tensor,
    graph: Graph,
    edges: EdgeCodes | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The sum of a site left in float."""
    if edges is None:
        return rescale(neighbor_sum(values, graph, None), None, None, None, row_scale, bias)
    acc = neighbor_sum(values, graph, edges.centred() if edges.are_codes else edges.codes)
    return rescale(acc, edges.scale, None, None, row_scale, bias)


def zero_point_sum(zero_point: Tensor, graph: Graph, edge_weight: Tensor | None) -> Tensor:
    """Sum over neighbours of a zero point per row ``[N, 1]``: ``[num_dst, H]``."""
    heads = 1 if edge_weight is None else edge_weight.size(1)
    return recorded(
        "zero_point_sum",
        lambda: neighbor_sum(zero_point.expand(-1, heads), graph, edge_weight),
        graph.indptr,
        graph.indices,
        zero_point,
        edge_weight,
    )


def _row_zeros(summands: Summands, graph: Graph, edges: EdgeCodes | None) -> Tensor:
    zero, key = summands.row_zero, summands.key
    assert zero is not None
    if edges is not None:
        return zero_point_sum(zero, graph, edges.centred())
    if key is None:
        return zero_point_sum(zero, graph, None)
    made: Tensor = graph.cached_for(
        key, "zero points", lambda: zero_point_sum(zero, graph, None), owned=True
    )
    return made


def _centred_sum(summands: Summands, graph: Graph, edges: EdgeCodes, epilogue: Epilogue) -> Tensor:
    """Edge codes around a zero point (weights of both signs) take two sums."""
    acc = ops.spmm(Edges(graph.indptr, graph.indices, edges.codes), summands.source)
    plain = ops.spmm(Edges(graph.indptr, graph.indices), summands.source)
    zero_point = edges.zero_point
    acc = recorded("centred", lambda: acc - zero_point * plain, acc, plain, zero_point)
    return ops.rescale(acc, epilogue)
