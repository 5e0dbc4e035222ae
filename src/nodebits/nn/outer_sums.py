"""Sums of the same rows with several weights each, once for both forms of rows.

A matrix per edge that is linear in h maps ``sum_j h_ij (x) x_j``, once for all edges of a target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.recorded import no_step
from nodebits.engine.chain import Producer
from nodebits.engine.epilogue import rescale
from nodebits.engine.pending import deliver
from nodebits.engine.stage import Stage
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows
from nodebits.nn.pairs import EdgeRows, common_zero, meeting
from nodebits.ops import Edges, Epilogue, Other
from nodebits.ops.autograd import neighbor_sum

_MOST_CODE = 255


def outer_sum(
    rows: AnyRows,
    factors: EdgeRows,
    graph: Graph,
    names: tuple[str, str],
    *,
    gain: Tensor,
    plain: bool,
    row_scale: Tensor | None = None,
    layer: Producer | None = None,
) -> Tensor:
    """``sum_j f_ijk x_j / gain_k`` for all k side by side; with ``plain`` follows ``sum_j x_j``.

    Args:
        rows: x, ``[num_src, C]``.
        factors: f, rows of K that edges have.
        graph: Topology.
        names: Of the sites of both, for errors.
        gain: float32 ``[K]``, by which the sums of each factor are divided: one range serves all.
        plain: Whether there is one more factor, of 1.
        row_scale: float32 ``[num_dst]``, by which a target's sums are multiplied, or None.
        layer: Whose result it is, if it may wait for its reader (:mod:`nodebits.engine.pending`).

    Returns:
        float32 ``[num_dst, K * C]``, or ``[num_dst, (K + 1) * C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If rows have a scale each.
    """
    row_scale = None if row_scale is None else row_scale.view(-1, 1)
    weights, places = factors
    if rows.is_float or weights.is_float:
        no_step("its messages, or what weighs them, are floats")
        one = rows.scale.new_ones(1)
        weight = weights.dequantize() / gain
        acc = _sum(rows.dequantize(), weight, places, graph, plain)
        return rescale(acc, one, None, None, row_scale, None)
    assert rows.bits is not None and weights.bits is not None
    graph.check_accumulator(max_code(rows.bits), max_code(weights.bits))
    x, f = meeting(rows, names[0]), meeting(weights, names[1])
    zero = common_zero(x.zero_point, x.num_cols, _MOST_CODE)
    factor_zero = common_zero(f.zero_point, f.num_cols, _MOST_CODE)
    columns = rows.scale.expand(x.num_cols)
    scale = ((weights.scale / gain).view(-1, 1) * columns).flatten()
    scale = torch.cat([scale, columns]) if plain else scale
    if x.summands is None or f.summands is None:
        acc = _sum(x.codes - zero, f.codes - factor_zero, places, graph, plain)
        return rescale(acc, scale, None, None, row_scale, None)
    source, of_edges = x.summands.source, f.summands.source
    records = (
        Edges(graph.indptr, graph.indices),
        source,
        Other(*of_edges),
        places,
        zero.int(),
        factor_zero.int(),
        plain,
        Epilogue(scale, None, None, row_scale),
    )
    shape = graph.num_dst, scale.numel()
    return deliver(layer, Stage(ops.fused_outer_sum, records, shape, source.packed.device))


def _sum(x: Tensor, factors: Tensor, places: Tensor | None, graph: Graph, plain: bool) -> Tensor:
    """The same of floats, or of centred codes, with gradients."""
    weight = factors if places is None else factors.index_select(0, places)
    if plain:
        weight = torch.cat([weight, weight.new_ones(weight.size(0), 1)], 1)
    return neighbor_sum(x.repeat(1, weight.size(1)), graph, weight)
