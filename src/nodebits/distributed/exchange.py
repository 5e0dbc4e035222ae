"""Rows of nodes that other ranks own: one message to every rank, as packed as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nodebits.distributed.errors import RankError
from nodebits.distributed.partition import Part
from nodebits.ops.selection import take_rows

T = TypeVar("T")


class Exchange:
    """Sends own rows to those who read them, and takes theirs.

    Attributes:
        sent: Bytes that went to other ranks, of rows and of shares of hubs.
    """

    def __init__(self, part: Part, world: int, timeout: float) -> None:
        self._part, self._world, self._timeout = part, world, timeout
        self.sent = 0

    def begin(self, rows: Tensor, what: str, whole: bool = False) -> Arriving:
        """Sends the rows that others read, and makes room for theirs behind the own ones.

        Args:
            rows: ``[n, ...]`` of own nodes.
            what: Names them in errors.
            whole: Whether rows that hubs alone read are sent too.
        """
        rows, part, count = rows.contiguous(), self._part, self._part.nodes.numel()
        ends = [count, count + sum(part.receive)]
        if whole:
            ends.append(ends[-1] + sum(part.hubs.receive))
        table = rows.new_empty((ends[-1], *rows.shape[1:]))
        table[:count] = rows
        arriving = Arriving(table, what, self._timeout)
        if self._world > 1:
            lists = [(part.send, part.send_counts, part.receive)]
            if whole:
                lists.append((part.hubs.send, part.hubs.send_counts, part.hubs.receive))
            for (send, leave, come), first, last in zip(lists, ends, ends[1:], strict=False):
                self._send(arriving, table[first:last], take_rows(rows, send), come, leave)
        return arriving

    def add_up(self, rows: Tensor, what: str, whole: bool = False) -> Tensor:
        """Numbers of own nodes, with those that others have for them added.

        Args:
            rows: int64 or float64 ``[n + h, ...]``, of own nodes and behind them of those of
                others, as :meth:`begin` orders them.
            what: Names them in errors.
            whole: As there.
        """
        part, count = self._part, self._part.nodes.numel()
        made = rows[:count].clone()
        lists = [(part.receive, part.send, part.send_counts)]
        if whole:
            lists.append((part.hubs.receive, part.hubs.send, part.hubs.send_counts))
        for leave, nodes, come in lists if self._world > 1 else []:
            leaving = rows[count : count + sum(leave)]
            made.index_add_(0, nodes, self.send(leaving, leave, come, what).wait())
            count += sum(leave)
        return made

    def send(self, rows: Tensor, leave: list[int], come: list[int], what: str) -> Arriving:
        """Sends rows that lie in the order of ranks, and makes room for those that come.

        Args:
            rows: ``[n, ...]``.
            leave: How many go to each rank.
            come: How many come from each.
            what: Names them in errors.
        """
        table = rows.new_empty((sum(come), *rows.shape[1:]))
        arriving = Arriving(table, what, self._timeout)
        self._send(arriving, table, rows.contiguous(), come, leave)
        return arriving

    def _send(
        self, arriving: Arriving, into: Tensor, leaving: Tensor, come: list[int], leave: list[int]
    ) -> None:
        self.sent += leaving.numel() * leaving.element_size()
        with named(arriving.what, self._timeout):
            work = dist.all_to_all_single(into, leaving, come, leave, async_op=True)
        arriving.works.append((work, leaving))


class Arriving:
    """Rows on their way.

    Attributes:
        what: Names them in errors.
        works: What they come by, and rows that leave meanwhile.
    """

    def __init__(self, table: Tensor, what: str, timeout: float) -> None:
        self._table, self.what, self._timeout = table, what, timeout
        self.works: list[tuple[Any, Tensor]] = []

    def wait(self) -> Tensor:
        """Own rows and those of others, ``[n + h, ...]``; of :meth:`Exchange.send` what came.

        Raises:
            RankError: They did not come.
        """
        while self.works:
            with named(self.what, self._timeout):
                self.works[0][0].wait()
            self.works.pop(0)
        return self._table


@contextmanager
def named(what: str, timeout: float) -> Iterator[None]:
    """Turns errors of the process group into :class:`RankError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankError):
            raise
        reason = " ".join(str(error).split())[:200]
        late = "imed out" in reason or "imeout" in reason
        why = f"did not answer within {timeout:g} seconds" if late else "ended"
        raise RankError(
            f"another rank {why} during {what} ({reason}); run the same command again: it goes on "
            "after the last layer that all ranks have finished"
        ) from error


def least_of_ranks(value: int, timeout: float) -> int:
    """The smallest of the numbers that ranks have."""
    if not dist.is_initialized():
        return value
    found = torch.tensor([value], device="cpu")
    with named("the start", timeout):
        dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def of_all_ranks(value: Any, timeout: float) -> list[Any]:
    """What every rank has, small things, in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    with named("the start", timeout):
        dist.all_gather_object(found, value)
    return found


def from_rank(rank: int, value: T, timeout: float) -> T:
    """What one rank has; others pass what is not looked at."""
    if not dist.is_initialized():
        return value
    found: list[Any] = [value]
    with named("the start", timeout):
        dist.broadcast_object_list(found, rank)
    made: T = found[0]
    return made
