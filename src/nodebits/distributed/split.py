"""Sums of hubs whose edges are divided: each rank adds up its share, and the owner all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodebits.distributed.exchange import Arriving, Exchange
from nodebits.distributed.partition import Part
from nodebits.distributed.works import Work
from nodebits.ops.records import Edges
from nodebits.plan.shares import WEIGHT, Piece, Share, share_of


@dataclass(frozen=True)
class _Divided:
    """Edges into own hubs by the rank of their source.

    Attributes:
        own: Those from own nodes, a row for each hub.
        places: int64, places of these among all edges of the hubs.
        others: Likewise of others, rank by rank, in the order of their shares; empty where edges
            have no codes.
        leave: How many edges the other ranks have.
        rows: int64, the hub of each row that others send, rank by rank.
        come: How many rows each rank sends.
    """

    own: Edges
    places: Tensor
    others: Tensor
    leave: list[int]
    rows: Tensor
    come: list[int]


@dataclass(frozen=True)
class Merging:
    """A sum of hubs under way: the own share, and those of others.

    Attributes:
        share: The step on all edges of the own hubs.
        pieces: What own nodes make of these.
        codes: Of all edges into own hubs, 0 where another rank has them, and then of own nodes'
            edges into those of others; None where the step makes none.
    """

    share: Share
    pieces: list[Piece]
    codes: Tensor | None
    rows: Tensor
    come: list[int]
    arriving: list[Arriving]

    def wait(self) -> list[Tensor]:
        """The step's results for the own hubs, but for codes of edges.

        Raises:
            RankError: A share did not come.
        """
        for piece, arriving in zip(self.pieces, self.arriving, strict=True):
            _merge(piece, self.rows, arriving.wait(), self.come)
        return self.share.finished([piece.values for piece in self.pieces])


def _merge(piece: Piece, rows: Tensor, others: Tensor, come: list[int]) -> None:
    """Takes what other ranks make of some rows, each of them once of each rank."""
    for some, other in zip(rows.split(come), others.split(come), strict=True):
        piece.merge(some, other)


def _counted(edges: Tensor, indptr: Tensor) -> Tensor:
    """How many edges of each row are marked, int64 ``[R]``; of rows that all have edges."""
    ends = edges.cumsum(0)[indptr[1:] - 1]
    return ends.diff(prepend=ends.new_zeros(1))


class SplitSums:
    """What a rank does for hubs, its own and those of others.

    Args:
        part: Of this rank.
        rank: This one.
        exchange: With the others.
    """

    def __init__(self, part: Part, rank: int, exchange: Exchange) -> None:
        self._part, self._rank, self._exchange = part, rank, exchange
        world = len(part.receive)
        ranks = torch.arange(world, dtype=torch.int32, device="cpu")
        counts = torch.tensor([part.receive, part.hubs.receive], device="cpu")
        self._rank_of = torch.cat(
            [
                torch.full((part.nodes.numel(),), rank, dtype=torch.int32, device="cpu"),
                *(ranks.repeat_interleave(count) for count in counts),
            ]
        )
        ends = [0]
        for count in part.hubs.shares:
            ends.append(ends[-1] + count)
        begins = part.hubs.indptr[ends]
        self._edges_of = begins.diff().tolist()
        self._known: dict[tuple[int, bool], tuple[Tensor, _Divided]] = {}

    def begin(self, work: Work, args: list[Any], weight: Tensor | None, what: str) -> Merging:
        """Computes this rank's shares and sends them; all ranks must call it.

        Args:
            work: The sum.
            args: Its arguments for the own hubs: their edges, and the codes of these; of sources
                the own rows.
            weight: Codes of own nodes' edges into hubs of others, where this rank made them.
            what: Names the step in errors.
        """
        hubs, share = self._part.hubs, share_of(work.step["op"], args)
        of_edges = None if share.of_edges else args[WEIGHT]
        found = self._divided(args[0], args[1], of_edges is not None and weight is None)
        edges, theirs = found.own, Edges(hubs.indptr, hubs.indices)
        if of_edges is not None:
            if weight is None:
                leave = of_edges.index_select(0, found.others)
                weight = self._exchange.send(leave, found.leave, self._edges_of, what).wait()
            theirs = theirs._replace(weight=weight)
            edges = edges._replace(weight=of_edges.index_select(0, found.places))
        told = share.told()
        own = share.on(edges, told)
        other = share.on(theirs, [self._to_others(rows, found, what) for rows in told])
        first, back = None, None
        if share.twice:
            piece = own.first()
            come = self._to_owners(other.first().values, found, what).wait()
            _merge(piece, found.rows, come, found.come)
            first, back = piece.values, self._to_others(piece.values, found, what)
        pieces, codes = own.second(first)
        leaving, more = other.second(back)
        if codes is not None and more is not None:
            all_codes = codes.new_zeros((args[1].numel() + more.size(0), codes.size(1)))
            all_codes[found.places] = codes
            all_codes[args[1].numel() :] = more
            codes = all_codes
        arriving = [self._to_owners(one.values, found, what) for one in leaving]
        return Merging(share, pieces, codes, found.rows, found.come, arriving)

    def _to_others(self, rows: Tensor, found: _Divided, what: str) -> Tensor:
        """Rows of hubs, of those who own them to those who have some of their edges."""
        leave = rows.index_select(0, found.rows)
        return self._exchange.send(leave, found.come, self._part.hubs.shares, what).wait()

    def _to_owners(self, rows: Tensor, found: _Divided, what: str) -> Arriving:
        return self._exchange.send(rows, self._part.hubs.shares, found.come, what)

    def _divided(self, indptr: Tensor, indices: Tensor, coded: bool) -> _Divided:
        key = indices.data_ptr(), coded
        if key not in self._known:
            self._known[key] = indices, self._divide(indptr, indices, coded)
        return self._known[key][1]

    def _divide(self, indptr: Tensor, indices: Tensor, coded: bool) -> _Divided:
        of = self._rank_of.index_select(0, indices)
        masks = [of == rank for rank in range(len(self._part.receive))]
        degree = torch.stack([_counted(mask, indptr) for mask in masks])
        places = masks[self._rank].nonzero().view(-1)
        own = degree[self._rank].cumsum(0)
        degree[self._rank] = 0
        lists = [places[:0]]
        if coded:
            others = (mask for rank, mask in enumerate(masks) if rank != self._rank)
            lists += [mask.nonzero().view(-1) for mask in others]
        sends = degree > 0
        return _Divided(
            Edges(torch.cat([own.new_zeros(1), own]), indices.index_select(0, places)),
            places,
            torch.cat(lists),
            degree.sum(1).tolist(),
            sends.nonzero()[:, 1],
            sends.sum(1).tolist(),
        )
