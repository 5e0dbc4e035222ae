"""Sums of rows that are moved and stretched by their target, rectified or not, from their codes."""

from __future__ import annotations

from torch import Tensor

from nodebits import ops
from nodebits.core.affine import max_code
from nodebits.core.recorded import no_step
from nodebits.engine.reductions import occupied
from nodebits.graph import Graph
from nodebits.nn.functional import AnyRows, aggregate
from nodebits.nn.pairs import edge_blocks, meeting
from nodebits.ops import Edges


def modulated_sum(
    rows: AnyRows,
    graph: Graph,
    film: Tensor,
    *,
    rectified: bool,
    mean: bool,
    name: str,
) -> Tensor:
    """``sum_j act(gamma_i x_j + beta_i)`` over the edges of every target, or the mean.

    Without an activation it is the sum of the rows, stretched and moved once. With a ReLU it
    follows from the codes of what is above zero, and their number: see
    :func:`nodebits.ops.modulated_sum`.

    Args:
        rows: x, ``[num_src, C]``.
        graph: Topology.
        film: float32 ``[num_dst, 2 * C]``, beta and gamma side by side.
        rectified: Whether there is a ReLU.
        mean: Whether the sum is divided by the number of edges.
        name: Of the site of the rows, for errors.

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If rows have a scale each.
    """
    inverse = graph.inverse_degree if mean else None
    if not rectified:
        beta, gamma = film.chunk(2, 1)
        times = occupied(graph) if mean else graph.degree.view(-1, 1)
        return gamma * aggregate(rows, graph, None, inverse) + beta * times
    if rows.is_float:
        no_step("its messages are floats")
        u = rows.dequantize()
        scale, zero_point = u.new_ones(1), u.new_zeros(1)
    else:
        assert rows.bits is not None
        graph.check_accumulator(max_code(rows.bits))
        source = meeting(rows, name)
        scale, zero_point = rows.scale, source.zero_point
        if source.summands is not None:
            edges = Edges(graph.indptr, graph.indices)
            packed = source.summands.source
            made: Tensor = ops.modulated_sum(edges, packed, film, scale, zero_point, inverse)
            return made
        u = source.codes
    return _of_codes(u, graph, film, (scale, zero_point), inverse)


def _of_codes(
    u: Tensor, graph: Graph, film: Tensor, affine: tuple[Tensor, Tensor], inverse: Tensor | None
) -> Tensor:
    """What the operator computes, with gradients."""
    beta, gamma = film.chunk(2, 1)
    slope = gamma * affine[0]
    offset = beta - slope * affine[1]
    total = u.new_zeros(graph.num_dst, u.size(1))
    number = total.clone()
    for targets, sources, _ in edge_blocks(graph):
        theirs = u.index_select(0, sources)
        moved = slope.detach().index_select(0, targets) * theirs.detach()
        above = (moved + offset.detach().index_select(0, targets) > 0).float()
        total = total.index_add(0, targets, theirs * above)
        number = number.index_add(0, targets, above)
    made = slope * total + offset * number
    return made if inverse is None else made * inverse.view(-1, 1)
