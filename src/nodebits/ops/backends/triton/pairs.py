"""Edges at which codes of two rows meet."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton import sums
from nodebits.ops.backends.triton.edges import edge_softmax
from nodebits.ops.backends.triton.kernels import pairs
from nodebits.ops.backends.triton.launch import launch, sizes_of
from nodebits.ops.definitions.edges import EdgeSoftmax
from nodebits.ops.definitions.pairs import (
    MOST_FLOOR,
    AttentionCodes,
    GatedSum,
    PairScores,
    RectifiedSoftmax,
    RectifiedSum,
)
from nodebits.ops.definitions.products import check_indptr, edge_rows
from nodebits.ops.records import Edges, Joined, Other, Source, Value

_RECTIFIED, _LARGEST, _SMALLEST, _WEIGHTED, _GATED = range(5)
_NO_ROWS = None, 0, None


def fields_of(rows: Source | Other | Value | tuple[Any, ...]) -> tuple[Tensor, int]:
    """As kernels take them: with fields that are codes, and the bytes of a row."""
    packed, bits, num_cols, coding = rows[:4]
    return sums.plain(Source(packed, bits, num_cols, coding)).packed, row_bytes(num_cols, bits)


def _joined(joined: list[Joined], at: int) -> tuple[tuple[Tensor | None, int, Tensor | None], int]:
    """Rows of edges, or none, and their width."""
    if at >= len(joined):
        return _NO_ROWS, 8
    one = joined[at]
    return (*fields_of(one), one.joined_order), one.joined_bits


def pair_scores(given: PairScores) -> Tensor:
    """See the definition."""
    edges, source, target, joined, vector, floor, factor, source_factor = given
    check_indptr(edges.indptr, edges.indices.numel())
    num_edges, heads = edges.indices.numel(), factor.numel()
    out = factor.new_empty((num_edges, heads))
    width = source.num_cols // heads
    of_edges, joined_bits = _joined(joined, 0)
    sizes = sizes_of("scores", source.bits, width)
    grid = -(-num_edges // sizes["EDGES"]), heads
    ends = fields_of(source), fields_of(target), of_edges
    launch(
        pairs.scores, grid, out, edges.indices, edge_rows(edges.indptr, num_edges), *ends,
        (vector, floor), (factor, source_factor), num_edges, heads, width, source.num_cols, out,
        BITS=source.bits, OTHER_BITS=target.other_bits, JOINED_BITS=joined_bits,
        **sizes,
    )  # fmt: skip
    return out


def attention_codes(given: AttentionCodes) -> tuple[Tensor, Tensor]:
    """See the definition: scores of edges, then their softmax."""
    scores = pair_scores(PairScores(*given[:8]))
    places = torch.arange(scores.size(0), dtype=torch.int32, device=scores.device)
    nothing = scores.new_zeros(given.edges.num_rows, scores.size(1))
    return edge_softmax(
        EdgeSoftmax(given.edges.indptr, places, scores, nothing, 1.0, given.code_bits)
    )


class _Pass(NamedTuple):
    """One pass over the edges, for any of the sums of pairs."""

    edges: Edges
    num_cols: int
    arguments: tuple[Any, ...]
    sizes: dict[str, int]

    def run(self, mode: int, tables: tuple[Any, ...], none: int = 0) -> tuple[Tensor, Tensor]:
        """Int32 ``[R, C]``: what edges come to, and the sums of their weights."""
        edges, cols = self.edges, self.num_cols
        found = sums.long_rows(edges.indptr)
        outs = tuple(
            torch.full((edges.num_rows, cols), first, dtype=torch.int32, device=edges.indptr.device)
            for first in (none, 0)
        )
        columns = -(-cols // self.sizes["BLOCK"])
        given = edges.indices, *self.arguments, tables, cols, none, outs
        rows = edges.indptr, found.limit
        launch(
            pairs.pair_rows, (edges.num_rows, columns), outs[0], *rows, *given, MODE=mode,
            **self.sizes,
        )  # fmt: skip
        parts = found.begins, found.ends, found.targets[found.lines]
        launch(
            pairs.pair_parts, (found.lines.numel(), columns), outs[0], *parts, *given, MODE=mode,
            **self.sizes,
        )  # fmt: skip
        return outs[0], outs[1]


def _pass(
    edges: Edges,
    source: Source,
    joined: list[Joined],
    other: Other | None = None,
    value: Value | None = None,
) -> _Pass:
    check_indptr(edges.indptr, edges.indices.numel())
    (first, first_bits), (second, second_bits) = _joined(joined, 0), _joined(joined, 1)
    nothing = None, 0
    weighed = (
        nothing if other is None else fields_of(other),
        nothing if value is None else fields_of(value),
        second,
    )
    sizes = {
        **sizes_of("pair_rows", source.bits, source.num_cols),
        "BITS": source.bits,
        "JOINED_BITS": first_bits,
        "OTHER_BITS": 8 if other is None else other.other_bits,
        "VALUE_BITS": 8 if value is None else value.value_bits,
        "SECOND_BITS": second_bits,
    }
    return _Pass(edges, source.num_cols, (fields_of(source), first, weighed), sizes)


def rectified_sum(given: RectifiedSum) -> Tensor:
    """See the definition."""
    edges, source, joined, floor, zero_point, scale = given
    acc, _ = _pass(edges, source, joined).run(_RECTIFIED, (floor, None, None, 0))
    degree = edges.indptr.diff().float().view(-1, 1)
    return (acc.float() - degree * zero_point) * scale


def rectified_softmax(given: RectifiedSoftmax) -> Tensor:
    """See the definition: a pass for the extremes of targets, and one for sums."""
    edges, source, joined, floor, table, falling, zero_point, scale = given
    made = _pass(edges, source, joined)
    mode, none = (_SMALLEST, MOST_FLOOR) if falling else (_LARGEST, 0)
    far, _ = made.run(mode, (floor, None, None, 0), none)
    acc, weights = made.run(_WEIGHTED, (floor, far, table, 0))
    mean = acc.float() / weights.clamp(min=1).float()
    return torch.where(weights > 0, (mean - zero_point) * scale, 0.0)


def gated_sum(given: GatedSum) -> Tensor:
    """See the definition."""
    edges, source, target, value, joined, table, gate_zero, zero_point, scale = given
    made = _pass(edges, source, joined, target, value)
    acc, gates = made.run(_GATED, (None, None, table, gate_zero))
    return (acc.float() - gates.float() * zero_point) * scale
