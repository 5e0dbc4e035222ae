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
from nodebits.engine.formats import Summands
from nodebits.engine.recording import record
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.nn.forms.cosine import EdgeDot, edges_as_sources
from nodebits.nn.forms.softmax import softmax_codes
from nodebits.nn.functional import AnyRows, Site
from nodebits.nn.pairs import EdgeRows, common_zero, edge_blocks, meeting
from nodebits.nn.quantizers.weight import WeightCodes
from nodebits.ops import Edges, Joined, Other
from nodebits.ops.definitions.pairs import MOST_SCORE_FLOOR, MOST_SCORED


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


def softmax_of_edges(site: Site, graph: Graph, scores: Tensor) -> EdgeCodes:
    """The softmax of scores that stand on the edges.

    Args:
        site: For the attention codes.
        graph: Topology.
        scores: float32 ``[E, H]`` in CSR order.
    """
    nothing = scores.new_zeros(graph.num_dst, scores.size(1))
    return softmax_codes(site, edges_as_sources(graph), scores, nothing, 1.0)


def _all(scores: list[Tensor], graph: Graph, heads: int) -> Tensor:
    device = graph.indptr.device
    return torch.cat(scores) if scores else torch.zeros(0, heads, device=device)


class _Scored:
    """Rows of both ends and of edges, as what scores are made of."""

    def __init__(
        self,
        graph: Graph,
        ends: tuple[AnyRows, AnyRows],
        names: tuple[str, str],
        features: EdgeRows | None,
    ) -> None:
        self.graph, self.features = graph, features
        self.source, self.target = meeting(ends[0], names[0]), meeting(ends[1], names[1])
        self.edge = None if features is None else meeting(features.rows, names[0])
        self.zero_point = self.source.zero_point
        if self.edge is not None:
            self.zero_point = self.zero_point + self.edge.zero_point

    @property
    def summands(self) -> tuple[Summands, Summands] | None:
        """Packed rows of both ends; None in training."""
        both = self.source.summands, self.target.summands
        return None if both[0] is None or both[1] is None else (both[0], both[1])

    @property
    def joined(self) -> list[Joined]:
        """Packed rows of edges, if there are some."""
        if self.features is None or self.edge is None or self.edge.summands is None:
            return []
        return [self.features.joined(self.edge.summands)]

    def codes(self, rows: Tensor, sources: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Codes of the sources, those of the edges added, and of the targets of some edges."""
        code = self.source.codes.index_select(0, sources)
        if self.features is not None and self.edge is not None:
            code = code + self.features.floats(self.edge.codes, part)
        return code, self.target.codes.index_select(0, rows)


def _in_codes(
    site: Site,
    scored: _Scored,
    vector: tuple[Tensor, Tensor] | None,
    factors: tuple[Tensor, Tensor],
) -> EdgeCodes:
    """The softmax of scores of packed rows."""
    assert site.bits is not None and scored.summands is not None
    source, target = scored.summands
    graph = scored.graph
    if isinstance(site, RowQuantizer):
        record(site, graph.num_edges, factors[0].numel(), num_scales=0)
    codes, row_sum = ops.attention_codes(
        Edges(graph.indptr, graph.indices),
        source.source,
        Other(*target.source),
        scored.joined,
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
    features: EdgeRows | None = None,
) -> EdgeCodes:
    """The softmax of ``a . leaky_relu(x_j + x_i + e_ij)``.

    Args:
        site: For the attention codes.
        graph: Topology.
        ends: Rows of sources and of targets, from one site.
        weight: ``a``, ``[H, F]``, by which the site's scale was multiplied before.
        negative_slope: Of the leaky ReLU.
        name: Of the site of the rows, for errors.
        features: e, from the same site.
    """
    integers = True
    if isinstance(weight, PackedWeight):
        vector, integers = weight.codes(), weight.bits is not None
    else:
        vector = weight.codes
    heads, cols = vector.size(0), vector.numel()
    scale = weight.scale.expand(heads)
    made = []
    if ends[0].is_float or ends[1].is_float:
        no_step("its attention scores are floats")
        theirs, mine = ends[0].dequantize(), ends[1].dequantize()
        plain = (vector * scale.view(-1, 1)).view(-1)
        edges = None if features is None else features.rows.dequantize()
        for rows, sources, part in edge_blocks(graph):
            x = theirs.index_select(0, sources) + mine.index_select(0, rows)
            if features is not None and edges is not None:
                x = x + features.floats(edges, part)
            x = leaky_relu(x, negative_slope)
            made.append((x * plain).view(x.size(0), heads, -1).sum(2))
        return softmax_of_edges(site, graph, _all(made, graph, heads))
    scored = _Scored(graph, ends, (name, name), features)
    floor = common_zero(scored.zero_point + scored.target.zero_point, cols, MOST_SCORE_FLOOR)
    factors = scale * (1.0 - negative_slope), scale * negative_slope
    if scored.summands is not None and site.bits is not None and integers:
        return _in_codes(site, scored, (vector.view(-1).int(), floor.int()), factors)
    no_step("its attention, or the vectors of it, are floats")
    flat = vector.reshape(-1)
    for rows, sources, part in edge_blocks(graph):
        code, own = scored.codes(rows, sources, part)
        both = (code + own - floor).clamp(min=0) * flat
        linear = _by_head(code * flat, heads) * factors[1]
        made.append(_by_head(both, heads) * factors[0] + linear)
    return softmax_of_edges(site, graph, _all(made, graph, heads))


def dot_attention(
    site: Site,
    graph: Graph,
    ends: tuple[AnyRows, AnyRows],
    heads: int,
    scale: float,
    names: tuple[str, str],
    features: EdgeRows | None = None,
) -> EdgeCodes:
    """The softmax of ``scale * (x_j + e_ij) . y_i``, by head.

    Args:
        site: For the attention codes.
        graph: Topology.
        ends: Rows of sources and of targets, one scale each.
        heads: Equal parts of their columns.
        scale: Of the products.
        names: Of the sites of the rows, for errors.
        features: e, from the site of the sources.

    Raises:
        ConfigError: If a column has a scale of its own: a product of codes needs one for all.
    """
    made = []
    if ends[0].is_float or ends[1].is_float:
        no_step("its attention scores are floats")
        theirs, mine = ends[0].dequantize(), ends[1].dequantize()
        edges = None if features is None else features.rows.dequantize()
        for rows, sources, part in edge_blocks(graph):
            x = theirs.index_select(0, sources)
            if features is not None and edges is not None:
                x = x + features.floats(edges, part)
            x = x * mine.index_select(0, rows)
            made.append(x.view(x.size(0), heads, -1).sum(2) * scale)
        return softmax_of_edges(site, graph, _all(made, graph, heads))
    scored = _Scored(graph, ends, names, features)
    check_one_scale(ends, names)
    factor = (ends[0].scale * ends[1].scale * scale).expand(heads)
    factors = factor, -scored.target.zero_point * factor
    if scored.summands is not None and site.bits is not None:
        return _in_codes(site, scored, None, factors)
    no_step("its attention weights are floats")
    for rows, sources, part in edge_blocks(graph):
        code, own = scored.codes(rows, sources, part)
        linear = _by_head(code, heads) * factors[1]
        made.append(_by_head(code * own, heads) * factors[0] + linear)
    return softmax_of_edges(site, graph, _all(made, graph, heads))


def check_one_scale(ends: tuple[AnyRows, ...], names: tuple[str, ...]) -> None:
    """Refuses rows whose columns have scales of their own.

    Raises:
        ConfigError: Names the site.
    """
    for rows_of, name in zip(ends, names, strict=True):
        if rows_of.scale.numel() != 1 or rows_of.zero_point.numel() != 1:
            raise ConfigError(f"site {name!r} is multiplied by column: it needs one scale for all")


def edge_dots(graph: Graph, rows: AnyRows, heads: int, name: str) -> tuple[Tensor, Tensor | None]:
    """Products of the rows of both ends of every edge, of codes where all have one scale.

    Args:
        graph: Topology, of one kind of nodes.
        rows: ``[N, C]``.
        heads: Equal parts of the columns.
        name: Of their site, for errors.

    Returns:
        float32 ``[E, H]``, ``x_j . x_i`` of the centred codes but for what follows from one end;
        and float32 ``[N, H]``, what it is of each end and is to be added for both, or None.
    """
    one_scale = rows.scale.numel() == 1 and rows.zero_point.numel() == 1
    if rows.is_float or not rows.is_plain or not one_scale:
        dots: Tensor = EdgeDot.apply(rows.centred(), graph, heads)
        return dots, None
    source = meeting(rows, name)
    zero, width = source.zero_point, source.num_cols // heads
    # (u - z) (v - z) is u v - z (u - z / 2) - z (v - z / 2), summed over the columns.
    codes = source.codes.view(-1, heads, width).sum(2)
    own = (codes - zero * (width / 2)) * -zero
    if source.summands is None:
        dots = EdgeDot.apply(source.codes, graph, heads)
        return dots, own
    edges, packed = Edges(graph.indptr, graph.indices), source.summands.source
    one = torch.ones(heads, device=graph.device)
    made: Tensor = ops.pair_scores(edges, packed, Other(*packed), [], None, None, one, one * 0)
    return made, own


def at_both_ends(values: Tensor, graph: Graph) -> Tensor:
    """Sums of what stands at both ends of every edge.

    Args:
        values: float32 ``[N, H]``.
        graph: Topology, of one kind of nodes.

    Returns:
        float32 ``[E, H]``.
    """
    return values.index_select(0, graph.indices) + values.index_select(0, graph.rows)
