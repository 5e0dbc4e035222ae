"""Sums over edges at which two rows meet: rectified sums, and values weighed by gates."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.errors import ConfigError
from nodebits.core.recorded import no_step
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, Site
from nodebits.nn.pairs import common_zero, edge_blocks, meeting
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops import Edges, Other, Value
from nodebits.ops.definitions.pairs import GATES


def _finished(acc: Tensor, weight: Tensor, zero_point: Tensor, scale: Tensor) -> Tensor:
    return (acc - weight * zero_point) * scale


def rectified_sum(
    rows: AnyRows, features: AnyRows, graph: Graph, places: Tensor | None, name: str
) -> Tensor:
    """``sum_j relu(x_j + e_ij)`` over the edges of every target.

    Args:
        rows: x, ``[num_src, C]``.
        features: e, ``[E, C]``, from the same site.
        graph: Topology.
        places: int64 ``[E]``, the row of every edge; None where they come as the edges do.
        name: Of the site, for errors.

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
    """
    if rows.is_float or features.is_float:
        no_step("its messages are floats")
        x, e = rows.dequantize(), features.dequantize()
        floor = x.new_zeros(1)
        zero_point, scale = floor, torch.ones_like(floor)
    else:
        assert rows.bits is not None
        graph.check_accumulator(2 * max_code(rows.bits))
        source, other = meeting(rows, name), meeting(features, name)
        total = source.zero_point + other.zero_point
        scale = rows.scale
        floor = common_zero(source.zero_point, other.zero_point, cols=source.num_cols)
        # Where every sum of two codes is above the zero, that is a share of every edge.
        zero_point = total.clamp(max=0)
        if source.summands is not None and other.summands is not None:
            made: Tensor = ops.rectified_sum(
                Edges(graph.indptr, graph.indices),
                source.summands.source,
                Other(*other.summands.source),
                places,
                floor.int(),
                zero_point,
                scale,
            )
            return made
        x, e = source.codes, other.codes
    acc = x.new_zeros(graph.num_dst, x.size(1))
    for targets, sources, part in edge_blocks(graph):
        theirs = e[part] if places is None else e.index_select(0, places[part])
        message = (x.index_select(0, sources) + theirs - floor).clamp(min=0)
        acc = acc.index_add(0, targets, message)
    return _finished(acc, graph.degree.view(-1, 1), zero_point, scale)


def gated_sum(
    site: Site,
    gate: tuple[AnyRows, AnyRows],
    value: AnyRows,
    graph: Graph,
    names: tuple[str, str],
) -> Tensor:
    """``sum_j sigmoid(x_j + x_i) v_j`` over the edges of every target; gates are codes of a table.

    Args:
        site: For the gates.
        gate: Rows of sources and of targets, from one site with one scale.
        value: v, ``[num_src, C]``.
        graph: Topology.
        names: Of the sites of ``gate`` and ``value``, for errors.

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If a column of ``gate`` has a scale of its own.
    """
    if gate[0].is_float or gate[1].is_float or value.is_float or site.bits is None:
        no_step("its gates, or what they weigh, are floats")
        theirs, mine, v = gate[0].dequantize(), gate[1].dequantize(), value.dequantize()
        out = v.new_zeros(graph.num_dst, v.size(1))
        for targets, sources, _ in edge_blocks(graph):
            x = theirs.index_select(0, sources) + mine.index_select(0, targets)
            out = out.index_add(0, targets, x.sigmoid() * v.index_select(0, sources))
        return out
    assert value.bits is not None
    top = max_code(site.bits)
    graph.check_accumulator(max_code(value.bits), top)
    source, target = meeting(gate[0], names[0]), meeting(gate[1], names[0])
    weighed = meeting(value, names[1])
    if gate[0].scale.numel() != 1 or source.zero_point.numel() != 1:
        raise ConfigError(f"site {names[0]!r} is read by a table: it needs one scale for all")
    zero_point, scale = source.zero_point + target.zero_point, gate[0].scale
    sums = torch.arange(GATES, device=scale.device)
    # In float64: sigmoids of float32 are not rounded alike on every machine.
    level = ((sums - zero_point.double()) * scale.double()).sigmoid() * top
    table = level.round()
    out_scale = value.scale / top
    if isinstance(site, RowQuantizer) and weighed.summands is not None:
        record(site, graph.num_edges, weighed.num_cols, num_scales=0)
        assert source.summands is not None and target.summands is not None
        made: Tensor = ops.gated_sum(
            Edges(graph.indptr, graph.indices),
            source.summands.source,
            Other(*target.summands.source),
            Value(*weighed.summands.source),
            table.to(torch.uint8),
            weighed.zero_point,
            out_scale,
        )
        return made
    u, t, v = source.codes, target.codes, weighed.codes
    if isinstance(site, Quantizer):
        site.last_shape = graph.num_edges, weighed.num_cols
    codes = table.float()
    acc, gates = v.new_zeros(graph.num_dst, v.size(1)), v.new_zeros(graph.num_dst, v.size(1))
    for targets, sources, _ in edge_blocks(graph):
        both = u.index_select(0, sources) + t.index_select(0, targets)
        smooth = ((both - zero_point) * scale).sigmoid() * top
        found = codes[both.detach().round().clamp(0, GATES - 1).long()]
        opened = smooth + (found - smooth).detach()
        acc = acc.index_add(0, targets, opened * v.index_select(0, sources))
        gates = gates.index_add(0, targets, opened)
    return _finished(acc, gates, weighed.zero_point, out_scale)
