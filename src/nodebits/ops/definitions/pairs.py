"""Edges at which the codes of two rows meet: scores of attention, and sums of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.outcomes import noted
from nodebits.ops import checks
from nodebits.ops.definitions.edges import check_indices, edge_softmax
from nodebits.ops.definitions.products import edge_rows
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Joined, Other, Source, Value

# Elements gathered at once.
_CHUNK = 1 << 24
# The largest sum of two codes of 8 bits, and one more, are the last floors that differ.
MOST_FLOOR = 511
#: The same of three codes.
MOST_SCORE_FLOOR = 766
_MOST_VECTOR = 255
#: Columns of a head beyond which the sums of a score could pass int32.
MOST_SCORED = (2**31 - 1) // ((MOST_SCORE_FLOOR - 1) * _MOST_VECTOR)
#: Entries of a table of gates, one for every sum of three codes.
GATES = 768
#: Entries of a table of weights, one for every difference of two messages.
SOFTMAX_WEIGHTS = 512


def plain_edges(edges: Edges, source: Source) -> tuple[Edges, Source]:
    """Checked edges without weights or blocks, and the rows that they take."""
    source = source.checked()
    if edges.weight is not None or edges.blocks is not None:
        raise ShapeError("edges of pairs have no weights and no edge blocks: leave them out")
    return edges.checked(source.packed, "packed", source.num_cols), source


def _meeting(
    source: Source, rows: Other | Value | tuple[Tensor, int, int, int], name: str
) -> Source:
    other = Source(*rows).checked(name)
    if other.num_cols != source.num_cols:
        raise ShapeError(
            f"{name} has {other.num_cols} columns for {source.num_cols} of the sources: rows that "
            "meet have one number of columns"
        )
    return other


def _rows_of(rows: Source, count: int, name: str, what: str) -> None:
    if rows.packed.size(0) != count:
        raise ShapeError(f"{name} has {rows.packed.size(0)} rows for {count} {what}")


def _joined(edges: Edges, source: Source, joined: list[Joined], most: int) -> list[Joined]:
    if len(joined) not in (0, most):
        raise ShapeError(f"{len(joined)} kinds of rows of edges join the sources: 0 or {most} may")
    made = []
    for one in joined:
        rows, order = _meeting(source, one[:4], "joined"), one.joined_order
        num_edges = edges.indices.numel()
        if order is None:
            _rows_of(rows, num_edges, "joined", "edges")
        else:
            order = checks.of_rows(order, "joined_order", torch.int64, num_edges)
            check_indices(order, rows.packed.size(0), "joined_order")
        made.append(Joined(*rows, order))
    return made


def bounded(values: Tensor, name: str, length: int, low: int, high: int) -> Tensor:
    """int32 ``[length]``, all of which lie between two bounds; raises ShapeError otherwise."""
    values = checks.of_rows(values, name, torch.int32, length)
    if length and noted(lambda: ((values < low) | (values > high)).any()):
        return values
    if length and not low <= int(values.min()) <= int(values.max()) <= high:
        raise ShapeError(
            f"{name} must hold {low} to {high}, got {int(values.min())} to {int(values.max())}"
        )
    return values


def edge_parts(edges: Edges, num_cols: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Sources, targets and places of some edges after some."""
    rows = edge_rows(edges.indptr, edges.indices.numel())
    step = max(1, _CHUNK // max(1, num_cols))
    for e in range(0, rows.numel(), step):
        part = slice(e, min(e + step, rows.numel()))
        yield edges.indices[part], rows[part], part


def _taken(codes: Tensor, joined: list[Joined], at: int, sources: Tensor, part: slice) -> Tensor:
    """Codes of the sources of some edges, those of the edges added where there are some."""
    u = codes.index_select(0, sources)
    if at >= len(joined):
        return u
    rows, order = Source(*joined[at][:4]), joined[at].joined_order
    v = rows.codes().int()
    return u + (v[part] if order is None else v.index_select(0, order[part]))


class PairScores(NamedTuple):
    """What the codes ``u`` of both ends of an edge score, those of the edge added to the source's.

    With a vector the score of a head is the rectified sum of both, weighed by column, and the
    source's own share: ``factor * sum_c v_c max(u_j + u_i - floor, 0) + source_factor * sum_c v_c
    u_j``. That is a leaky ReLU but for what all edges of a target have alike, of which a softmax is
    independent. Without one it is ``factor * sum_c u_j u_i + source_factor * sum_c u_j``, the
    product of both ends but for the same. Sums are exact in int32.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        target: Rows u_i, one for each of the R.
        joined: Rows of edges, of one kind or none.
        vector: int32 ``[C]``, magnitudes up to 255, H heads side by side, or None.
        floor: int32 ``[C]``, 0 to 766, with a vector.
        factor: float32 ``[H]``.
        source_factor: float32 ``[H]``.

    Returns:
        float32 ``[E, H]``.
    """

    edges: Edges
    source: Source
    target: Other
    joined: list[Joined]
    vector: Tensor | None
    floor: Tensor | None
    factor: Tensor
    source_factor: Tensor

    def checked(self) -> PairScores:
        edges, source = plain_edges(self.edges, self.source)
        mine = _meeting(source, self.target, "target")
        _rows_of(mine, edges.num_rows, "target", "rows of edges")
        joined = _joined(edges, source, self.joined, 1)
        factor = checks.tensor(self.factor, "factor", torch.float32, 1)
        heads, cols = factor.numel(), source.num_cols
        theirs = checks.of_rows(self.source_factor, "source_factor", torch.float32, heads)
        if not heads or cols % heads or cols // heads > MOST_SCORED:
            raise ShapeError(
                f"{heads} heads of {cols} columns: a multiple of them, {MOST_SCORED} each at "
                "most, lest a sum passes int32"
            )
        vector, floor = self.vector, self.floor
        if (vector is None) != (floor is None):
            raise ShapeError("vector and floor come together")
        if vector is not None and floor is not None:
            vector = bounded(vector, "vector", cols, -_MOST_VECTOR, _MOST_VECTOR)
            floor = bounded(floor, "floor", cols, 0, MOST_SCORE_FLOOR)
        return PairScores(edges, source, Other(*mine), joined, vector, floor, factor, theirs)

    def results(self) -> Result:
        return Result((self.edges.indices.size(0), self.factor.size(0)), torch.float32)

    def compute(self) -> Tensor:
        edges, source, target, joined, vector, floor, factor, source_factor = self
        u, t = source.codes().int(), Source(*target).codes().int()
        heads, num_edges = factor.numel(), edges.indices.numel()
        scores = u.new_zeros((num_edges, heads), dtype=torch.float32)

        def by_head(values: Tensor) -> Tensor:
            return values.view(values.size(0), heads, -1).sum(2).float()

        for sources, rows, part in edge_parts(edges, source.num_cols):
            theirs, mine = _taken(u, joined, 0, sources, part), t.index_select(0, rows)
            if vector is None or floor is None:
                product, linear = theirs * mine, theirs
            else:
                product = (theirs + mine - floor).clamp(min=0) * vector
                linear = theirs * vector
            scores[part] = by_head(product) * factor + by_head(linear) * source_factor
        return scores


pair_scores = operator(PairScores)


class AttentionCodes(NamedTuple):
    """The softmax, in integers, of :class:`PairScores`: :func:`edge_softmax` goes on with them.

    Args:
        edges: See there, likewise all others.
        source: See there.
        target: See there.
        joined: See there.
        vector: See there.
        floor: See there.
        factor: See there.
        source_factor: See there.
        code_bits: Width of the codes, 1 to 8.

    Returns:
        Codes uint8 ``[E, H]`` and row sums int32 ``[R, H]``.
    """

    edges: Edges
    source: Source
    target: Other
    joined: list[Joined]
    vector: Tensor | None
    floor: Tensor | None
    factor: Tensor
    source_factor: Tensor
    code_bits: int

    def checked(self) -> AttentionCodes:
        check_bits(self.code_bits)
        return AttentionCodes(*PairScores(*self[:8]).checked(), self.code_bits)

    def results(self) -> tuple[Result, Result]:
        heads = self.factor.size(0)
        return (
            Result((self.edges.indices.size(0), heads), torch.uint8),
            Result((self.edges.num_rows, heads), torch.int32),
        )

    def compute(self) -> tuple[Tensor, Tensor]:
        scores, edges = PairScores(*self[:8]).compute(), self.edges
        places = torch.arange(scores.size(0), dtype=torch.int32, device=scores.device)
        nothing = scores.new_zeros(edges.num_rows, scores.size(1))
        return edge_softmax.reference(edges.indptr, places, scores, nothing, 1.0, self.code_bits)


attention_codes = operator(AttentionCodes)


def affine_of(zero_point: Tensor, scale: Tensor, num_cols: int) -> tuple[Tensor, Tensor]:
    """Checked zero points and scales, one value or one per column each."""
    zero = checks.columns(zero_point, "zero_point", num_cols)
    factor = checks.columns(scale, "scale", num_cols)
    assert zero is not None and factor is not None
    return zero, factor


def floats_of(edges: Edges, source: Source) -> Result:
    """The result of a sum over edges, float32 ``[R, C]``, and its work per row."""
    work = edges.indices.size(0) / max(edges.num_rows, 1)
    return Result((edges.num_rows, source.num_cols), torch.float32, None, work)


class RectifiedSum(NamedTuple):
    """``(sum_j max(u_j + v_ij - floor, 0) - degree * zero_point) * scale`` of codes.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        joined: Rows v of edges, of one kind or none.
        floor: int32 ``[C]``, 0 to 511.
        zero_point: float32 ``[C]`` or one value.
        scale: float32 ``[C]`` or one value.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    source: Source
    joined: list[Joined]
    floor: Tensor
    zero_point: Tensor
    scale: Tensor

    def checked(self) -> RectifiedSum:
        edges, source = plain_edges(self.edges, self.source)
        joined = _joined(edges, source, self.joined, 1)
        floor = bounded(self.floor, "floor", source.num_cols, 0, MOST_FLOOR)
        affine = affine_of(self.zero_point, self.scale, source.num_cols)
        return RectifiedSum(edges, source, joined, floor, *affine)

    def results(self) -> Result:
        return floats_of(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, joined, floor, *_ = self
        u = source.codes().int()
        acc = u.new_zeros((edges.num_rows, source.num_cols))
        for sources, rows, part in edge_parts(edges, source.num_cols):
            message = (_taken(u, joined, 0, sources, part) - floor).clamp(min=0)
            acc.index_add_(0, rows, message)
        return self.finished(acc)

    def finished(self, acc: Tensor) -> Tensor:
        """The rows, of int32 sums over all edges of each."""
        degree = self.edges.indptr.diff().float().view(-1, 1)
        return (acc.float() - degree * self.zero_point) * self.scale


rectified_sum = operator(RectifiedSum)


class RectifiedSoftmax(NamedTuple):
    """``(sum_j w_ij m_ij / sum_j w_ij - zero_point) * scale`` by column; 0 without edges.

    Messages are ``m_ij = max(u_j + v_ij - floor, 0)``, weights ``w_ij = table[|m_ij - far_i|]``
    with the largest message of the target, or the smallest. A table of exponentials makes that a
    softmax, one with a single weight the maximum or minimum itself.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        joined: Rows v of edges, of one kind or none.
        floor: int32 ``[C]``, 0 to 511.
        table: uint8 ``[512]``, the first of which is not 0.
        falling: Whether distances are those from the smallest message.
        zero_point: float32 ``[C]`` or one value.
        scale: float32 ``[C]`` or one value.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32, but for the quotient and the scale.
    """

    edges: Edges
    source: Source
    joined: list[Joined]
    floor: Tensor
    table: Tensor
    falling: bool
    zero_point: Tensor
    scale: Tensor

    def checked(self) -> RectifiedSoftmax:
        sums = RectifiedSum(*self[:4], *self[6:]).checked()
        table = checks.of_rows(self.table, "table", torch.uint8, SOFTMAX_WEIGHTS)
        if not noted(lambda: table[0] == 0) and not int(table[0]):
            raise ShapeError("table[0] is 0: it weighs the largest message, and must not be")
        return RectifiedSoftmax(*sums[:4], table, self.falling, *sums[4:])

    def results(self) -> Result:
        return floats_of(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, joined, floor, table, falling, *_ = self
        u = source.codes().int()
        shape = edges.num_rows, source.num_cols
        far = u.new_full(shape, MOST_FLOOR if falling else 0)
        for sources, rows, part in edge_parts(edges, source.num_cols):
            message = (_taken(u, joined, 0, sources, part) - floor).clamp(min=0)
            far.scatter_reduce_(
                0, rows.view(-1, 1).expand_as(message), message, "amin" if falling else "amax"
            )
        acc, weights = u.new_zeros(shape), u.new_zeros(shape)
        for sources, rows, part in edge_parts(edges, source.num_cols):
            message = (_taken(u, joined, 0, sources, part) - floor).clamp(min=0)
            weight = table.int()[(message - far.index_select(0, rows)).abs()]
            acc.index_add_(0, rows, weight * message)
            weights.index_add_(0, rows, weight)
        return self.finished(acc, weights)

    def finished(self, acc: Tensor, weights: Tensor) -> Tensor:
        """The rows, of int32 sums over all edges of each: of weighed messages, and of weights."""
        mean = acc.float() / weights.clamp(min=1).float()
        return torch.where(weights > 0, (mean - self.zero_point) * self.scale, 0.0)


rectified_softmax = operator(RectifiedSoftmax)


class GatedSum(NamedTuple):
    """``(sum_j g_ij v_j - sum_j g_ij * zero_point) * scale`` of gates from a table.

    These are ``g_ij = table[u_j + u_i] - gate_zero``. Rows of edges are added to u_j and to v_j.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        target: Rows u_i, one for each of the R.
        value: Rows v_j, as many as sources.
        joined: Rows of edges: none, or those that join u_j and those that join v_j.
        table: uint8 ``[768]``, the gate of a sum of codes.
        gate_zero: 0 to 255.
        zero_point: float32 ``[C]`` or one value.
        scale: float32 ``[C]`` or one value.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    source: Source
    target: Other
    value: Value
    joined: list[Joined]
    table: Tensor
    gate_zero: int
    zero_point: Tensor
    scale: Tensor

    def checked(self) -> GatedSum:
        edges, source = plain_edges(self.edges, self.source)
        mine = _meeting(source, self.target, "target")
        weighed = _meeting(source, self.value, "value")
        _rows_of(mine, edges.num_rows, "target", "rows of edges")
        _rows_of(weighed, source.packed.size(0), "value", "rows of sources")
        joined = _joined(edges, source, self.joined, 2)
        table = checks.of_rows(self.table, "table", torch.uint8, GATES)
        if not 0 <= self.gate_zero <= 255:
            raise ShapeError(f"gate_zero must be 0 to 255, got {self.gate_zero}")
        affine = affine_of(self.zero_point, self.scale, source.num_cols)
        ends = Other(*mine), Value(*weighed)
        return GatedSum(edges, source, *ends, joined, table, self.gate_zero, *affine)

    def results(self) -> Result:
        return floats_of(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, target, value, joined, table, gate_zero, *_ = self
        u, t = source.codes().int(), Source(*target).codes().int()
        v = Source(*value).codes().int()
        acc = u.new_zeros((edges.num_rows, source.num_cols))
        gates = torch.zeros_like(acc)
        for sources, rows, part in edge_parts(edges, source.num_cols):
            at = _taken(u, joined, 0, sources, part) + t.index_select(0, rows)
            gate = table.int()[at] - gate_zero
            acc.index_add_(0, rows, gate * _taken(v, joined, 1, sources, part))
            gates.index_add_(0, rows, gate)
        return self.finished(acc, gates)

    def finished(self, acc: Tensor, gates: Tensor) -> Tensor:
        """The rows, of int32 sums over all edges of each: of gated values, and of gates."""
        return (acc.float() - gates.float() * self.zero_point) * self.scale


gated_sum = operator(GatedSum)
