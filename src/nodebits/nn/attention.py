"""Attention by scores of what both ends of an edge hold: integers, and their softmax in integers.

What all edges of a target have alike is left out of scores: a softmax does not depend on it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.errors import AccumulatorOverflowError, ConfigError
from nodebits.core.recorded import no_step
from nodebits.engine.edges import EdgeCodes
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.forms.cosine import edges_as_sources
from nodebits.nn.forms.softmax import softmax_codes
from nodebits.nn.functional import AnyRows, Site
from nodebits.nn.pairs import Meeting, common_zero, edge_blocks, meeting
from nodebits.nn.quantizers.weight import WeightCodes
from nodebits.ops import Edges, Other
from nodebits.ops.definitions.pairs import MOST_SCORED


def check_scored(columns: int, path: str) -> None:
    """Refuses scores whose sums could pass int32.

    Args:
        columns: Of a head.
        path: Of the layer.

    Raises:
        AccumulatorOverflowError: Names the layer and the bound.
    """
    if columns > MOST_SCORED:
        raise AccumulatorOverflowError(
            f"layer {path!r} scores {columns} columns of a head at once: int32 is exact only to "
            f"{MOST_SCORED}; use more heads"
        )


def _by_head(values: Tensor, heads: int) -> Tensor:
    """Sums ``[E, H]`` of integers: exact in float64, and rounded once."""
    return values.view(values.size(0), heads, -1).sum(2, dtype=torch.float64).float()


def _softmax(site: Site, graph: Graph, scores: list[Tensor], heads: int) -> EdgeCodes:
    device = graph.indptr.device
    made = torch.cat(scores) if scores else torch.zeros(0, heads, device=device)
    nothing = made.new_zeros(graph.num_dst, heads)
    return softmax_codes(site, edges_as_sources(graph), made, nothing, 1.0)


def _in_codes(
    site: Site,
    graph: Graph,
    ends: tuple[Meeting, Meeting],
    vector: tuple[Tensor, Tensor] | None,
    factors: tuple[Tensor, Tensor],
) -> EdgeCodes:
    """The softmax of scores of packed rows."""
    assert site.bits is not None
    source, target = ends[0].summands, ends[1].summands
    assert source is not None and target is not None
    if isinstance(site, RowQuantizer):
        record(site, graph.num_edges, factors[0].numel(), num_scales=0)
    codes, row_sum = ops.attention_codes(
        Edges(graph.indptr, graph.indices),
        source.source,
        Other(*target.source),
        None if vector is None else vector[0],
        None if vector is None else vector[1],
        *factors,
        site.bits,
    )
    return EdgeCodes(codes, row_sum.float(), None, 0, max_code(site.bits))


def additive_attention(
    site: Site,
    graph: Graph,
    ends: tuple[AnyRows, AnyRows],
    weight: WeightCodes | PackedWeight,
    negative_slope: float,
    name: str,
) -> EdgeCodes:
    """The softmax of ``a . leaky_relu(x_j + x_i)``.

    Args:
        site: For the attention codes.
        graph: Topology.
        ends: Rows of sources and of targets, from one site.
        weight: ``a``, ``[H, F]``, by which the site's scale was multiplied before.
        negative_slope: Of the leaky ReLU.
        name: Of the site of the rows, for errors.
    """
    integers = True
    if isinstance(weight, PackedWeight):
        vector, integers = weight.codes(), weight.bits is not None
    else:
        vector = weight.codes
    heads, cols = vector.size(0), vector.numel()
    scale = weight.scale.expand(heads)
    if ends[0].is_float or ends[1].is_float:
        no_step("its attention scores are floats")
        theirs, mine = ends[0].dequantize(), ends[1].dequantize()
        plain = (vector * scale.view(-1, 1)).view(-1)
        made = []
        for rows, sources, _ in edge_blocks(graph):
            x = leaky_relu(
                theirs.index_select(0, sources) + mine.index_select(0, rows), negative_slope
            )
            made.append((x * plain).view(x.size(0), heads, -1).sum(2))
        return _softmax(site, graph, made, heads)
    source, target = meeting(ends[0], name), meeting(ends[1], name)
    floor = common_zero(source.zero_point, target.zero_point, cols=cols)
    factors = scale * (1.0 - negative_slope), scale * negative_slope
    if source.summands is not None and site.bits is not None and integers:
        vectors = vector.view(-1).int(), floor.int()
        return _in_codes(site, graph, (source, target), vectors, factors)
    no_step("its attention, or the vectors of it, are floats")
    u, t, flat = source.codes, target.codes, vector.reshape(-1)
    made = []
    for rows, sources, _ in edge_blocks(graph):
        code = u.index_select(0, sources)
        both = (code + t.index_select(0, rows) - floor).clamp(min=0) * flat
        linear = _by_head(code * flat, heads) * factors[1]
        made.append(_by_head(both, heads) * factors[0] + linear)
    return _softmax(site, graph, made, heads)


def dot_attention(
    site: Site,
    graph: Graph,
    ends: tuple[AnyRows, AnyRows],
    heads: int,
    scale: float,
    names: tuple[str, str],
) -> EdgeCodes:
    """The softmax of ``scale * x_j . y_i``, by head.

    Args:
        site: For the attention codes.
        graph: Topology.
        ends: Rows of sources and of targets, one scale each.
        heads: Equal parts of their columns.
        scale: Of the products.
        names: Of the sites of the rows, for errors.

    Raises:
        ConfigError: If a column has a scale of its own: a product of codes needs one for all.
    """
    if ends[0].is_float or ends[1].is_float:
        no_step("its attention scores are floats")
        theirs, mine = ends[0].dequantize(), ends[1].dequantize()
        made = []
        for rows, sources, _ in edge_blocks(graph):
            x = theirs.index_select(0, sources) * mine.index_select(0, rows)
            made.append(x.view(x.size(0), heads, -1).sum(2) * scale)
        return _softmax(site, graph, made, heads)
    source, target = meeting(ends[0], names[0]), meeting(ends[1], names[1])
    for rows_of, name in zip(ends, names, strict=True):
        if rows_of.scale.numel() != 1 or rows_of.zero_point.numel() != 1:
            raise ConfigError(f"site {name!r} is multiplied by column: it needs one scale for all")
    factor = (ends[0].scale * ends[1].scale * scale).expand(heads)
    factors = factor, -target.zero_point * factor
    if source.summands is not None and site.bits is not None:
        return _in_codes(site, graph, (source, target), None, factors)
    no_step("its attention weights are floats")
    u, t = source.codes, target.codes
    made = []
    for rows, sources, _ in edge_blocks(graph):
        code = u.index_select(0, sources)
        linear = _by_head(code, heads) * factors[1]
        made.append(_by_head(code * t.index_select(0, rows), heads) * factors[0] + linear)
    return _softmax(site, graph, made, heads)
