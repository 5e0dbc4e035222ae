"""Sums over edges at which two rows meet: rectified sums and softmaxes, and gated values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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
from nodebits.nn.pairs import EdgeRows, Meeting, common_zero, edge_blocks, meeting
from nodebits.nn.quantizers.base import Quantizer
from nodebits.ops import Edges, Joined, Other, Source, Value
from nodebits.ops.definitions.pairs import GATES, SOFTMAX_WEIGHTS


def _finished(acc: Tensor, weight: Tensor, zero_point: Tensor, scale: Tensor) -> Tensor:
    return (acc - weight * zero_point) * scale


class _Messages(NamedTuple):
    """``relu(x_j + e_ij) + shift``, as ``(max(u_j + v_ij - floor, 0) - zero_point) * scale``.

    Attributes:
        graph: Topology.
        x: u, or the values.
        e: v, or the values; None for none.
        features: Of e.
        floor: float32 ``[C]``, an integer.
        zero_point: float32 ``[1]`` or ``[C]``.
        scale: float32 ``[1]`` or ``[C]``.
        packed: Packed rows, of sources and of edges; None in training.
    """

    graph: Graph
    x: Callable[[], Tensor]
    e: Callable[[], Tensor] | None
    features: EdgeRows | None
    floor: Tensor
    zero_point: Tensor
    scale: Tensor
    packed: tuple[Source, list[Joined]] | None
    is_float: bool

    @classmethod
    def of(
        cls,
        rows: AnyRows,
        features: EdgeRows | None,
        graph: Graph,
        name: str,
        shift: float,
        max_weight: int = 1,
    ) -> _Messages:
        """Of rows of one site; of floats where a site is left in float."""
        if rows.is_float or (features is not None and features.rows.is_float):
            no_step("its messages are floats")
            zero = graph.degree.new_zeros(1)
            e = None if features is None else features.rows.dequantize
            one = torch.ones_like(zero)
            return cls(graph, rows.dequantize, e, features, zero, zero - shift, one, None, True)
        assert rows.bits is not None
        kinds = 1 if features is None else 2
        graph.check_accumulator(kinds * max_code(rows.bits), max_weight)
        source, total, other = meeting(rows, name), rows.zero_point, None
        total = source.zero_point
        if features is not None:
            other = meeting(features.rows, name)
            total = total + other.zero_point
        # Where every sum of codes is above the zero, that is a share of every edge.
        zero_point = total.clamp(max=0)
        if shift:
            zero_point = zero_point - shift / rows.scale
        packed = None
        if source.summands is not None:
            packed = source.summands.source, _joined([features], [other])
        codes = None if other is None else lambda: other.codes
        floor = common_zero(total, source.num_cols)
        return cls(
            graph, lambda: source.codes, codes, features, floor, zero_point, rows.scale, packed,
            False,
        )  # fmt: skip

    def by_block(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Targets and rectified codes of some edges after some."""
        x, e = self.x(), None if self.e is None else self.e()
        for targets, sources, part in edge_blocks(self.graph):
            message = x.index_select(0, sources)
            if e is not None and self.features is not None:
                message = message + self.features.floats(e, part)
            yield targets, (message - self.floor).clamp(min=0)

    @property
    def edges(self) -> Edges:
        """As operators take them."""
        return Edges(self.graph.indptr, self.graph.indices)


def _joined(features: list[EdgeRows | None], rows: list[Meeting | None]) -> list[Joined]:
    """Packed rows of edges, those that there are."""
    made = []
    for one, met in zip(features, rows, strict=True):
        if one is not None and met is not None:
            assert met.summands is not None
            made.append(one.joined(met.summands))
    return made


def rectified_sum(
    rows: AnyRows, features: EdgeRows | None, graph: Graph, name: str, shift: float = 0.0
) -> Tensor:
    """``sum_j (relu(x_j + e_ij) + shift)`` over the edges of every target.

    Args:
        rows: x, ``[num_src, C]``.
        features: e, from the same site; None for none.
        graph: Topology.
        name: Of the site, for errors.
        shift: Added to every message.

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
    """
    m = _Messages.of(rows, features, graph, name, shift)
    if m.packed is not None:
        source, joined = m.packed
        made: Tensor = ops.rectified_sum(
            m.edges, source, joined, m.floor.int(), m.zero_point, m.scale
        )
        return made
    acc = m.scale.new_zeros(graph.num_dst, rows.num_cols)
    for targets, message in m.by_block():
        acc = acc.index_add(0, targets, message)
    return _finished(acc, graph.degree.view(-1, 1), m.zero_point, m.scale)


class Sharpness(NamedTuple):
    """How a softmax weighs messages.

    Attributes:
        factor: What messages are multiplied by before the exponential, ``[1]``; None for the
            largest alone.
        detached: Whether weights take part in gradients.
    """

    factor: Tensor | None
    detached: bool = False


def _largest(m: _Messages, cols: int, falling: bool) -> Tensor:
    """The largest code of every target and column, or the smallest."""
    far = m.scale.new_full((m.graph.num_dst, cols), torch.inf if falling else -torch.inf)
    for targets, message in m.by_block():
        index = targets.view(-1, 1).expand_as(message)
        far = far.scatter_reduce(0, index, message.detach(), "amin" if falling else "amax")
    return far.detach()


def rectified_softmax(
    site: Site,
    rows: AnyRows,
    features: EdgeRows | None,
    graph: Graph,
    sharpness: Sharpness,
    name: str,
    shift: float = 0.0,
) -> Tensor:
    """``sum_j w_ij m_ij / sum_j w_ij`` by column, of ``m_ij = relu(x_j + e_ij) + shift``.

    Weights are ``exp(t m_ij)``, as codes over the largest of the target.

    Args:
        site: For the weights.
        rows: x, ``[num_src, C]``, one scale for all where there is a factor.
        features: e, from the same site; None for none.
        graph: Topology.
        sharpness: t.
        name: Of the site, for errors.
        shift: Added to every message.

    Returns:
        float32 ``[num_dst, C]``, 0 for targets without edges.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If a column has a scale of its own.
    """
    factor = sharpness.factor
    top = 1 if factor is None or site.bits is None else max_code(site.bits)
    m = _Messages.of(rows, features, graph, name, shift, top)
    cols = rows.num_cols
    falling = factor is not None and bool(factor < 0)
    if factor is not None and not m.is_float and m.scale.numel() != 1:
        raise ConfigError(f"site {name!r} is weighed by a table: it needs one scale for all")
    weighs = site.bits is not None and not m.is_float
    distance = torch.arange(SOFTMAX_WEIGHTS, device=m.scale.device)
    if factor is None:
        table = (distance == 0).double()
    else:
        # In float64: exponentials of float32 are not rounded alike on every machine.
        rate = factor.detach().double().abs() * m.scale.detach().double()
        table = ((distance * -rate).exp() * top).round()
    if m.packed is not None and (weighs or factor is None):
        if isinstance(site, RowQuantizer) and factor is not None:
            record(site, graph.num_edges, cols, num_scales=0)
        source, joined = m.packed
        codes = table.to(torch.uint8)
        made: Tensor = ops.rectified_softmax(
            m.edges, source, joined, m.floor.int(), codes, falling, m.zero_point, m.scale
        )
        return made
    if m.packed is not None:
        no_step("the weights of its softmax are floats")
    if isinstance(site, Quantizer) and weighs and factor is not None:
        site.last_shape = graph.num_edges, cols
    far = _largest(m, cols, falling)
    acc, weights = m.scale.new_zeros(graph.num_dst, cols), m.scale.new_zeros(graph.num_dst, cols)
    for targets, message in m.by_block():
        apart = message - far.index_select(0, targets)
        if factor is None:  # the largest ones share the gradient
            weight = (apart == 0).float()
        else:
            weight = (apart * (factor * m.scale)).exp() * top
            if weighs:
                places = apart.detach().abs().round().long().clamp(max=SOFTMAX_WEIGHTS - 1)
                weight = weight + (table.float()[places] - weight).detach()
        if sharpness.detached:
            weight = weight.detach()
        acc = acc.index_add(0, targets, weight * message)
        weights = weights.index_add(0, targets, weight)
    there = weights > 0
    mean = acc / torch.where(there, weights, 1.0)
    return torch.where(there, (mean - m.zero_point) * m.scale, 0.0)


class Gates(NamedTuple):
    """A table of gates: codes, and what they stand for.

    Attributes:
        codes: float64 ``[768]``, one for every sum of codes.
        zero: The code of 0.
        step: What a code is worth, float32 ``[1]``.
    """

    codes: Tensor
    zero: int
    step: Tensor

    @classmethod
    def of(cls, act: Any, zero_point: Tensor, scale: Tensor, reached: int, top: int) -> Gates:
        """Of an activation; in float64: those of float32 are not rounded alike on every machine.

        Args:
            act: Elementwise.
            zero_point: Of the sums of codes.
            scale: Of a code.
            reached: The largest sum.
            top: The largest gate.
        """
        sums = torch.arange(GATES, device=scale.device).clamp(max=reached)
        with torch.no_grad():
            level = act((sums - zero_point.double()) * scale.double())
            low, high = level.min().clamp(max=0.0), level.max().clamp(min=0.0)
            step = (high - low) / top
            step = torch.where(step > 0, step, 1.0)
            zero = (-low / step).round()
            codes = ((level / step).round() + zero).clamp(0, top)
        return cls(codes, int(zero), step.float().view(1))


def gated_sum(
    site: Site,
    act: Any,
    gate: tuple[AnyRows, AnyRows],
    value: AnyRows,
    graph: Graph,
    names: tuple[str, str],
    features: tuple[EdgeRows, EdgeRows] | None = None,
) -> Tensor:
    """``sum_j act(x_j + x_i + e_ij) (v_j + f_ij)`` by target; gates are codes of a table.

    Args:
        site: For the gates.
        act: An elementwise function without parameters.
        gate: Rows of sources and of targets, from one site with one scale.
        value: v, ``[num_src, C]``.
        graph: Topology.
        names: Of the sites of ``gate`` and ``value``, for errors.
        features: e and f, from these sites; None for none.

    Returns:
        float32 ``[num_dst, C]``.

    Raises:
        AccumulatorOverflowError: If a sum could pass int32.
        ConfigError: If a column of ``gate`` has a scale of its own.
    """
    if gate[0].is_float or gate[1].is_float or value.is_float or site.bits is None:
        no_step("its gates, or what they weigh, are floats")
        theirs, mine, v = gate[0].dequantize(), gate[1].dequantize(), value.dequantize()
        edges = None if features is None else [one.rows.dequantize() for one in features]
        out = v.new_zeros(graph.num_dst, v.size(1))
        for targets, sources, part in edge_blocks(graph):
            x, weighed = theirs.index_select(0, sources), v.index_select(0, sources)
            if features is not None and edges is not None:
                x = x + features[0].floats(edges[0], part)
                weighed = weighed + features[1].floats(edges[1], part)
            x = x + mine.index_select(0, targets)
            out = out.index_add(0, targets, act(x) * weighed)
        return out
    assert value.bits is not None and gate[0].bits is not None
    top, kinds = max_code(site.bits), 1 if features is None else 2
    graph.check_accumulator(kinds * max_code(value.bits), top)
    met = [meeting(gate[0], names[0]), meeting(gate[1], names[0]), meeting(value, names[1])]
    source, target, weight = met
    if gate[0].scale.numel() != 1 or source.zero_point.numel() != 1:
        raise ConfigError(f"site {names[0]!r} is read by a table: it needs one scale for all")
    zero_point, scale = source.zero_point + target.zero_point, gate[0].scale
    value_zero = weight.zero_point
    of_edges: list[Meeting | None] = [None, None]
    given: list[EdgeRows | None] = [None, None]
    if features is not None:
        given = list(features)
        of_edges = [meeting(one.rows, name) for one, name in zip(features, names, strict=True)]
        assert of_edges[0] is not None and of_edges[1] is not None
        zero_point = zero_point + of_edges[0].zero_point
        value_zero = value_zero + of_edges[1].zero_point
    table = Gates.of(act, zero_point, scale, (1 + kinds) * max_code(gate[0].bits), top)
    out_scale = value.scale * table.step
    if isinstance(site, RowQuantizer) and weight.summands is not None:
        record(site, graph.num_edges, weight.num_cols, num_scales=0)
        assert source.summands is not None and target.summands is not None
        made: Tensor = ops.gated_sum(
            Edges(graph.indptr, graph.indices),
            source.summands.source,
            Other(*target.summands.source),
            Value(*weight.summands.source),
            _joined(given, of_edges),
            table.codes.to(torch.uint8),
            table.zero,
            value_zero,
            out_scale,
        )
        return made
    u, t, v = source.codes, target.codes, weight.codes
    if isinstance(site, Quantizer):
        site.last_shape = graph.num_edges, weight.num_cols
    codes = table.codes.float() - table.zero
    acc, gates = v.new_zeros(graph.num_dst, v.size(1)), v.new_zeros(graph.num_dst, v.size(1))
    for targets, sources, part in edge_blocks(graph):
        both, weighed = u.index_select(0, sources), v.index_select(0, sources)
        if of_edges[0] is not None and of_edges[1] is not None and features is not None:
            both = both + features[0].floats(of_edges[0].codes, part)
            weighed = weighed + features[1].floats(of_edges[1].codes, part)
        both = both + t.index_select(0, targets)
        smooth = act((both - zero_point) * scale) / table.step
        found = codes[both.detach().round().clamp(0, GATES - 1).long()]
        opened = smooth + (found - smooth).detach()
        acc = acc.index_add(0, targets, opened * weighed)
        gates = gates.index_add(0, targets, opened)
    return _finished(acc, gates, value_zero, out_scale)
