"""Sums over neighbours of some of a row's edges, and what all of these make together.

Integers are added, and codes compared, in any order: a row whose edges lie apart has the bits of
one whose edges lie together. A softmax is made in two rounds: what each part has as its largest
score, and then, of the largest of all, codes and their sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nodebits.ops import (
    edge_softmax,
    fused_extremum,
    gated_sum,
    pair_scores,
    quantize_pack,
    rectified_sum,
    rescale,
    spmm,
)
from nodebits.ops.definitions.fused import complete, finish
from nodebits.ops.definitions.pairs import GATES
from nodebits.ops.definitions.products import edge_rows
from nodebits.ops.operator import OPERATORS
from nodebits.ops.records import Edges, Epilogue, Other, Sink, Source, Value

#: Place of the codes of edges among the arguments of a weighted sum.
WEIGHT = 2
# Edges whose sum of products of two codes float32 holds exactly.
_EXACT = (1 << 24) // (255 * 256)


class Piece(NamedTuple):
    """What some of the edges make of each row.

    Attributes:
        values: ``[R, ...]``.
        joins: How those of other edges join it: ``add``, ``max`` or ``min``.
    """

    values: Tensor
    joins: str = "add"

    def merge(self, rows: Tensor, other: Tensor) -> None:
        """Takes what other edges make of some of the rows.

        Args:
            rows: int64 ``[r]``, each once.
            other: ``[r, ...]``.
        """
        self.values[rows] = _JOINS[self.joins](self.values[rows], other)


_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}


class Share:
    """A step on some of the edges of each row. The step asks of them what a class says.

    Args:
        record: Of the operator's arguments; its edges and their sources may be None where only
            :meth:`finished` is asked for.
    """

    #: Whether there is a :meth:`first` round.
    twice: ClassVar[bool] = False
    #: Whether the first result has a row for each edge.
    of_edges: ClassVar[bool] = False

    def __init__(self, record: Any) -> None:
        self.record = record

    def told(self) -> list[Tensor]:
        """Rows of the targets, ``[R, ...]``, that whoever has some of their edges must know."""
        return []

    def on(self, edges: Edges, told: list[Tensor]) -> Share:
        """The same step on other edges.

        Args:
            edges: Rows of some targets.
            told: What :meth:`told` has of these.
        """
        return type(self)(self.record._replace(edges=edges))

    def first(self) -> Piece:
        """What is merged of all parts before the second round."""
        raise NotImplementedError

    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        """What is merged at last, and codes of the edges where the step makes such.

        Args:
            first: What all parts made in the first round, for these rows.
        """
        raise NotImplementedError

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        """The step's results, without those of edges.

        Args:
            pieces: Of the second round, merged.
        """
        raise NotImplementedError


class _Sum(Share):
    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        return [Piece(spmm(self.record.edges, self.record.source))], None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        return pieces


class _FusedSum(_Sum):
    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        _, source, own, epilogue, sink = self.record
        return complete(pieces[0], source, own, epilogue, sink, rescale, quantize_pack)


def _extreme(edges: Edges, source: Source, smallest: bool) -> Piece:
    """The largest or smallest code of each row, uint8 ``[R, C]``; the other end without edges."""
    # The kernel gives rows after an epilogue: of one that changes nothing, these are the codes.
    same = Epilogue(torch.ones(1, device=source.packed.device))
    (rows,) = fused_extremum(edges, source, smallest, same, Sink())
    codes = rows.to(torch.uint8)
    if not smallest:
        return Piece(codes, "max")
    return Piece(codes.masked_fill_((edges.indptr.diff() == 0).view(-1, 1), 255), "min")


class _Extremum(Share):
    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        edges, source, smallest, *_ = self.record
        return [_extreme(edges, source, smallest)], None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        _, _, _, epilogue, sink = self.record
        return finish(rescale(pieces[0].to(torch.int32), epilogue), sink, quantize_pack)


class _Statistics(Share):
    @property
    def _names(self) -> list[str]:
        return sorted(self.record.integers)

    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        edges, source = self.record.edges, self.record.source

        def one(name: str) -> Piece:
            if name in ("max", "min"):
                return _extreme(edges, source, name == "min")
            if name == "sum":
                return Piece(spmm(edges, source))
            # Squares are two bytes each, of which the kernel makes sums.
            squares = source.codes().to(torch.int32).square()
            low, high = (spmm(edges, _bytes(part)) for part in (squares & 255, squares >> 8))
            return Piece(low + (high << 8))

        return [one(name) for name in self._names], None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        integers = {n: part.to(torch.int32) for n, part in zip(self._names, pieces, strict=True)}
        return [self.record.finished(integers)]


def _bytes(codes: Tensor) -> Source:
    """Rows of eight bits, of integers up to 255."""
    return Source(codes.to(torch.uint8).contiguous(), 8, codes.size(1))


def _integers(of: Callable[[Edges, Tensor], Tensor], edges: Edges) -> Tensor:
    """int32 sums of a kernel that gives float32 ones: exact of rows with few edges, then added.

    Args:
        of: The float32 rows of some edges, and the row of ``edges`` that each belongs to.
        edges: All of them.
    """
    degree = edges.indptr.diff()
    count = (degree + _EXACT - 1) // _EXACT
    rows = torch.arange(degree.numel(), device=degree.device).repeat_interleave(count)
    before = (count.cumsum(0) - count)[rows]
    begins = edges.indptr[rows] + _EXACT * (torch.arange(rows.numel(), device="cpu") - before)
    cut = edges._replace(indptr=torch.cat([begins, edges.indptr[-1:]]))
    floats = of(cut, rows)
    return floats.new_zeros((degree.numel(), floats.size(1)), dtype=torch.int32).index_add_(
        0, rows, floats.to(torch.int32)
    )


def _zero_and_one(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_zeros(1), like.new_ones(1)


class _Rectified(Share):
    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        zero, one = _zero_and_one(self.record.scale)
        plain = self.record._replace(zero_point=zero, scale=one)

        def sums(edges: Edges, rows: Tensor) -> Tensor:
            return rectified_sum(*plain._replace(edges=edges))

        return [Piece(_integers(sums, self.record.edges))], None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        return [self.record.finished(*pieces)]


def _gated(record: Any) -> list[Piece]:
    """Sums of gated values, and of gates."""
    zero, one = _zero_and_one(record.scale)

    def sums(zero_point: Tensor) -> Tensor:
        plain = record._replace(zero_point=zero_point, scale=one)

        def of(edges: Edges, rows: Tensor) -> Tensor:
            mine = record.target._replace(other=record.target.other[rows])
            return gated_sum(*plain._replace(edges=edges, target=mine))

        return _integers(of, record.edges)

    acc = sums(zero)
    return [Piece(acc), Piece(acc - sums(one))]


class _Gated(Share):
    def told(self) -> list[Tensor]:
        return [self.record.target.other]

    def on(self, edges: Edges, told: list[Tensor]) -> Share:
        target = self.record.target._replace(other=told[0])
        return _Gated(self.record._replace(edges=edges, target=target))

    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        return _gated(self.record), None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        return [self.record.finished(*pieces)]


class _RectifiedSoftmax(Share):
    twice = True

    def _messages(self) -> Source:
        return _bytes((self.record.source.codes().int() - self.record.floor).clamp(min=0))

    def first(self) -> Piece:
        return _extreme(self.record.edges, self._messages(), self.record.falling)

    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        # A weight is a gate: what it is looked up by, the distance, is a sum of two codes.
        assert first is not None
        record, messages = self.record, self._messages()
        at = torch.arange(GATES, device="cpu")
        distance = at - 255 if record.falling else 255 - at
        table = record.table[distance.abs().clamp(max=record.table.numel() - 1)]
        mine = Other(255 - first, 8, messages.num_cols)
        gates = gated_sum.arguments(
            record.edges, messages, mine, Value(*messages), [], table, 0, *record[6:]
        )
        return _gated(gates), None

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        return [self.record.finished(*pieces)]


class _Softmax(Share):
    """The integer softmax of scores of edges, float32 ``[E, H]``."""

    twice = of_edges = True

    @cached_property
    def _scores(self) -> Tensor:
        raise NotImplementedError

    @property
    def _edges(self) -> Edges:
        edges: Edges = self.record.edges
        return edges

    def first(self) -> Piece:
        edges, scores = self._edges, self._scores
        rows = edge_rows(edges.indptr, scores.size(0)).view(-1, 1).expand_as(scores)
        top = scores.new_full((edges.num_rows, scores.size(1)), -torch.inf)
        return Piece(top.scatter_reduce_(0, rows, scores, "amax"), "max")

    def second(self, first: Tensor | None) -> tuple[list[Piece], Tensor | None]:
        # One more edge of each row has the largest score of all parts, and is left out again.
        assert first is not None
        indptr, scores = self._edges.indptr, self._scores
        count, rows = scores.size(0), edge_rows(indptr, scores.size(0))
        number = torch.arange(indptr.numel(), device="cpu")
        places = torch.arange(count, device="cpu") + rows
        more = indptr[1:] + number[:-1]
        taken = torch.empty(count + more.numel(), dtype=torch.int32, device="cpu")
        taken[places] = torch.arange(count, dtype=torch.int32, device="cpu")
        taken[more] = count + number[:-1].int()
        nothing = first.new_zeros(first.shape)
        codes, sums = edge_softmax(
            indptr + number, taken, torch.cat([scores, first]), nothing, 1.0, self._bits
        )
        return [Piece(sums - codes[more].to(torch.int32))], codes[places]

    @property
    def _bits(self) -> int:
        return int(self.record[-1])

    def finished(self, pieces: list[Tensor]) -> list[Tensor]:
        return pieces


class _ScoredSoftmax(_Softmax):
    """Of GAT: what a source and a target score add up."""

    @property
    def _edges(self) -> Edges:
        return Edges(self.record.indptr, self.record.indices)

    def told(self) -> list[Tensor]:
        return [self.record.score_dst]

    def on(self, edges: Edges, told: list[Tensor]) -> Share:
        indptr, indices, *_ = edges
        changed = self.record._replace(indptr=indptr, indices=indices, score_dst=told[0])
        return _ScoredSoftmax(changed)

    @cached_property
    def _scores(self) -> Tensor:
        indptr, indices, ours, theirs, slope, _ = self.record
        e = ours.index_select(0, indices)
        e = e + theirs.index_select(0, edge_rows(indptr, indices.numel()))
        e = torch.where(e > 0, e, e * slope)
        return torch.where(e.isnan(), torch.full_like(e, -torch.inf), e)


class _PairSoftmax(_Softmax):
    """Of the codes of both ends."""

    def told(self) -> list[Tensor]:
        return [self.record.target.other]

    def on(self, edges: Edges, told: list[Tensor]) -> Share:
        target = self.record.target._replace(other=told[0])
        return _PairSoftmax(self.record._replace(edges=edges, target=target))

    @cached_property
    def _scores(self) -> Tensor:
        scores = pair_scores(*self.record[:8])
        return torch.where(scores.isnan(), torch.full_like(scores, -torch.inf), scores)


#: By step.
SHARES: dict[str, type[Share]] = {
    "spmm": _Sum,
    "fused_spmm": _FusedSum,
    "fused_extremum": _Extremum,
    "neighbor_statistics": _Statistics,
    "rectified_sum": _Rectified,
    "rectified_softmax": _RectifiedSoftmax,
    "gated_sum": _Gated,
    "edge_softmax": _ScoredSoftmax,
    "attention_codes": _PairSoftmax,
}


def share_of(op: str, args: list[Any]) -> Share:
    """A step as shares.

    Args:
        op: One of ``SHARES``.
        args: Its arguments, values or their names.
    """
    return SHARES[op](OPERATORS[op].record(*args))


def is_divisible(step: dict[str, Any]) -> bool:
    """Whether a step is made of shares: of those alone that edges have no rows of their own in."""
    if step["op"] not in SHARES:
        return False
    return not getattr(share_of(step["op"], step["args"]).record, "joined", [])
