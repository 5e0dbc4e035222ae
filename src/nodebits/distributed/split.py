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
from nodebits.plan.shares import WEIGHT, merge, share


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
    """A sum of hubs under way: the own share, and those of others."""

    acc: Tensor
    rows: Tensor
    come: list[int]
    arriving: Arriving

    def wait(self, work: Work) -> Tensor:
        """What all edges of each hub make.

        Raises:
            RankError: A share did not come.
        """
        parts = zip(self.rows.split(self.come), self.arriving.wait().split(self.come), strict=True)
        for rows, other in parts:
            merge(work.step, self.acc, rows, other)
        return self.acc


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
        ranks = torch.arange(world, device="cpu")
        counts = torch.tensor([part.receive, part.hubs.receive], device="cpu")
        self._rank_of = torch.cat(
            [
                torch.full((part.nodes.numel(),), rank, dtype=torch.int64, device="cpu"),
                *(ranks.repeat_interleave(count) for count in counts),
            ]
        )
        ends = [0]
        for count in part.hubs.shares:
            ends.append(ends[-1] + count)
        begins = part.hubs.indptr[ends]
        self._edges_of = begins.diff().tolist()
        self._known: dict[tuple[int, bool], tuple[Tensor, _Divided]] = {}

    def begin(self, work: Work, args: list[Any], packed: Tensor, what: str) -> Merging:
        """Computes this rank's shares and sends them; all ranks must call it.

        Args:
            work: The sum.
            args: Its arguments for the own hubs: their edges, and the codes of these.
            packed: Own rows of what is summed.
            what: Names the step in errors.
        """
        weight, hubs = args[WEIGHT], self._part.hubs
        found = self._divided(args[0], args[1], weight is not None)
        own, theirs = found.own, Edges(hubs.indptr, hubs.indices)
        if weight is not None:
            leave = weight.index_select(0, found.others)
            codes = self._exchange.send(leave, found.leave, self._edges_of, what).wait()
            theirs = theirs._replace(weight=codes)
            own = own._replace(weight=weight.index_select(0, found.places))
        arriving = self._exchange.send(
            share(work.step, theirs, packed), hubs.shares, found.come, what
        )
        return Merging(share(work.step, own, packed), found.rows, found.come, arriving)

    def _divided(self, indptr: Tensor, indices: Tensor, coded: bool) -> _Divided:
        key = indices.data_ptr(), coded
        if key not in self._known:
            self._known[key] = indices, self._divide(indptr, indices, coded)
        return self._known[key][1]

    def _divide(self, indptr: Tensor, indices: Tensor, coded: bool) -> _Divided:
        world, count = len(self._part.receive), indptr.numel() - 1
        rows = torch.arange(count, device="cpu").repeat_interleave(indptr.diff())
        of = self._rank_of[indices.long()]
        degree = torch.bincount(of * count + rows, minlength=world * count).view(world, count)
        places = (of == self._rank).nonzero().view(-1)
        own = degree[self._rank].cumsum(0)
        degree[self._rank] = 0
        lists = [places[:0]]
        if coded:
            others = (rank for rank in range(world) if rank != self._rank)
            lists += [(of == rank).nonzero().view(-1) for rank in others]
        sends = degree > 0
        return _Divided(
            Edges(torch.cat([own.new_zeros(1), own]), indices.index_select(0, places)),
            places,
            torch.cat(lists),
            degree.sum(1).tolist(),
            sends.nonzero()[:, 1],
            sends.sum(1).tolist(),
        )
