"""Edges at which the codes of two rows meet: scores of attention, and sums of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.definitions.edges import check_indices, edge_softmax
from nodebits.ops.definitions.products import edge_rows
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Other, Source, Value

# Elements gathered at once.
_CHUNK = 1 << 24
# The largest sum of two codes of 8 bits, and one more, are the last floors that differ.
MOST_FLOOR = 511
_MOST_VECTOR = 255
#: Columns of a head beyond which the sums of a score could pass int32.
MOST_SCORED = (2**31 - 1) // (510 * _MOST_VECTOR)
#: Entries of a table of gates.
GATES = 512


def _ends(edges: Edges, source: Source) -> tuple[Edges, Source]:
    source = source.checked()
    if edges.weight is not None or edges.blocks is not None:
        raise ShapeError("edges of pairs have no weights and no edge blocks: leave them out")
    return edges.checked(source.packed, "packed", source.num_cols), source


def _meeting(source: Source, rows: Other | Value, name: str) -> Source:
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


def _bounded(values: Tensor, name: str, length: int, low: int, high: int) -> Tensor:
    values = checks.of_rows(values, name, torch.int32, length)
    if length and not low <= int(values.min()) <= int(values.max()) <= high:
        raise ShapeError(
            f"{name} must hold {low} to {high}, got {int(values.min())} to {int(values.max())}"
        )
    return values


def _blocks(edges: Edges, num_cols: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Sources, targets and places of some edges after some."""
    rows = edge_rows(edges.indptr, edges.indices.numel())
    step = max(1, _CHUNK // max(1, num_cols))
    for e in range(0, rows.numel(), step):
        part = slice(e, min(e + step, rows.numel()))
        yield edges.indices[part], rows[part], part


class AttentionCodes(NamedTuple):
    """The softmax, in integers, of what the codes ``u`` of both ends of an edge score.

    With a vector the score of a head is the rectified sum of both, weighed by column, and the
    source's own share: ``factor * sum_c v_c max(u_j + u_i - floor, 0) + source_factor * sum_c v_c
    u_j``. That is a leaky ReLU but for what all edges of a target have alike, of which a softmax is
    independent. Without one it is ``factor * sum_c u_j u_i + source_factor * sum_c u_j``, the
    product of both ends but for the same. Sums are exact in int32; :func:`edge_softmax` goes on.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        target: Rows u_i, one for each of the R.
        vector: int32 ``[C]``, magnitudes up to 255, H heads side by side, or None.
        floor: int32 ``[C]``, 0 to 511, with a vector.
        factor: float32 ``[H]``.
        source_factor: float32 ``[H]``.
        code_bits: Width of the codes, 1 to 8.

    Returns:
        Codes uint8 ``[E, H]`` and row sums int32 ``[R, H]``.
    """

    edges: Edges
    source: Source
    target: Other
    vector: Tensor | None
    floor: Tensor | None
    factor: Tensor
    source_factor: Tensor
    code_bits: int

    def checked(self) -> AttentionCodes:
        check_bits(self.code_bits)
        edges, source = _ends(self.edges, self.source)
        mine = _meeting(source, self.target, "target")
        _rows_of(mine, edges.num_rows, "target", "rows of edges")
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
            vector = _bounded(vector, "vector", cols, -_MOST_VECTOR, _MOST_VECTOR)
            floor = _bounded(floor, "floor", cols, 0, MOST_FLOOR)
        return AttentionCodes(
            edges, source, Other(*mine), vector, floor, factor, theirs, self.code_bits
        )

    def results(self) -> tuple[Result, Result]:
        heads = self.factor.size(0)
        return (
            Result((self.edges.indices.size(0), heads), torch.uint8),
            Result((self.edges.num_rows, heads), torch.int32),
        )

    def compute(self) -> tuple[Tensor, Tensor]:
        edges, source, target, vector, floor, factor, source_factor, code_bits = self
        u, t = source.codes().int(), Source(*target).codes().int()
        heads, num_edges = factor.numel(), edges.indices.numel()
        scores = u.new_zeros((num_edges, heads), dtype=torch.float32)

        def by_head(values: Tensor) -> Tensor:
            return values.view(values.size(0), heads, -1).sum(2).float()

        for sources, rows, part in _blocks(edges, source.num_cols):
            theirs, mine = u.index_select(0, sources), t.index_select(0, rows)
            if vector is None or floor is None:
                product, linear = theirs * mine, theirs
            else:
                product = (theirs + mine - floor).clamp(min=0) * vector
                linear = theirs * vector
            scores[part] = by_head(product) * factor + by_head(linear) * source_factor
        places = torch.arange(num_edges, dtype=torch.int32, device=u.device)
        nothing = scores.new_zeros(edges.num_rows, heads)
        return edge_softmax.reference(edges.indptr, places, scores, nothing, 1.0, code_bits)


attention_codes = operator(AttentionCodes)


def _affine(zero_point: Tensor, scale: Tensor, num_cols: int) -> tuple[Tensor, Tensor]:
    zero = checks.columns(zero_point, "zero_point", num_cols)
    factor = checks.columns(scale, "scale", num_cols)
    assert zero is not None and factor is not None
    return zero, factor


def _floats(edges: Edges, source: Source) -> Result:
    work = edges.indices.size(0) / max(edges.num_rows, 1)
    return Result((edges.num_rows, source.num_cols), torch.float32, None, work)


class RectifiedSum(NamedTuple):
    """``(sum_j max(u_j + v_ij - floor, 0) - degree * zero_point) * scale`` of codes.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        features: Rows v of edges.
        order: int64 ``[E]``, the row of every edge; None where they come as the edges do.
        floor: int32 ``[C]``, 0 to 511.
        zero_point: float32 ``[C]`` or one value.
        scale: float32 ``[C]`` or one value.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    source: Source
    features: Other
    order: Tensor | None
    floor: Tensor
    zero_point: Tensor
    scale: Tensor

    def checked(self) -> RectifiedSum:
        edges, source = _ends(self.edges, self.source)
        of_edges, order = _meeting(source, self.features, "features"), self.order
        num_edges = edges.indices.numel()
        if order is None:
            _rows_of(of_edges, num_edges, "features", "edges")
        else:
            order = checks.of_rows(order, "order", torch.int64, num_edges)
            check_indices(order, of_edges.packed.size(0), "order")
        floor = _bounded(self.floor, "floor", source.num_cols, 0, MOST_FLOOR)
        affine = _affine(self.zero_point, self.scale, source.num_cols)
        return RectifiedSum(edges, source, Other(*of_edges), order, floor, *affine)

    def results(self) -> Result:
        return _floats(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, features, order, floor, zero_point, scale = self
        u, v = source.codes().int(), Source(*features).codes().int()
        acc = u.new_zeros((edges.num_rows, source.num_cols))
        for sources, rows, part in _blocks(edges, source.num_cols):
            theirs = v[part] if order is None else v.index_select(0, order[part])
            message = (u.index_select(0, sources) + theirs - floor).clamp(min=0)
            acc.index_add_(0, rows, message)
        degree = edges.indptr.diff().float().view(-1, 1)
        return (acc.float() - degree * zero_point) * scale


rectified_sum = operator(RectifiedSum)


class GatedSum(NamedTuple):
    """``(sum_j g_ij v_j - sum_j g_ij * zero_point) * scale`` of ``g_ij = table[u_j + u_i]``.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        target: Rows u_i, one for each of the R.
        value: Rows v_j, as many as sources.
        table: uint8 ``[512]``, the gate of a sum of two codes.
        zero_point: float32 ``[C]`` or one value.
        scale: float32 ``[C]`` or one value.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    source: Source
    target: Other
    value: Value
    table: Tensor
    zero_point: Tensor
    scale: Tensor

    def checked(self) -> GatedSum:
        edges, source = _ends(self.edges, self.source)
        mine = _meeting(source, self.target, "target")
        weighed = _meeting(source, self.value, "value")
        _rows_of(mine, edges.num_rows, "target", "rows of edges")
        _rows_of(weighed, source.packed.size(0), "value", "rows of sources")
        table = checks.of_rows(self.table, "table", torch.uint8, GATES)
        affine = _affine(self.zero_point, self.scale, source.num_cols)
        return GatedSum(edges, source, Other(*mine), Value(*weighed), table, *affine)

    def results(self) -> Result:
        return _floats(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, target, value, table, zero_point, scale = self
        u, t = source.codes().int(), Source(*target).codes().int()
        v = Source(*value).codes().int()
        acc = u.new_zeros((edges.num_rows, source.num_cols))
        gates = torch.zeros_like(acc)
        for sources, rows, _ in _blocks(edges, source.num_cols):
            at = u.index_select(0, sources) + t.index_select(0, rows)
            gate = table.int()[at]
            acc.index_add_(0, rows, gate * v.index_select(0, sources))
            gates.index_add_(0, rows, gate)
        return (acc.float() - gates.float() * zero_point) * scale


gated_sum = operator(GatedSum)
