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
        sent: Bytes that went to other ranks.
        rows: Rows that went there, of any width.
    """

    def __init__(self, part: Part, world: int, timeout: float) -> None:
        self._part, self._world, self._timeout = part, world, timeout
        self._count, self._halo = part.nodes.numel(), sum(part.receive)
        self.sent = self.rows = 0

    def begin(self, rows: Tensor, what: str) -> Arriving:
        """Sends the rows that others read, and makes room for theirs behind the own ones.

        Args:
            rows: ``[n, ...]`` of own nodes.
            what: Names them in errors.
        """
        rows = rows.contiguous()
        table = rows.new_empty((self._count + self._halo, *rows.shape[1:]))
        table[: self._count] = rows
        work = None
        if self._world > 1:
            leaving = take_rows(rows, self._part.send)
            self.sent += leaving.numel() * leaving.element_size()
            self.rows += leaving.size(0)
            with named(what, self._timeout):
                work = dist.all_to_all_single(
                    table[self._count :],
                    leaving,
                    self._part.receive,
                    self._part.send_counts,
                    async_op=True,
                )
            return Arriving(table, work, leaving, what, self._timeout)
        return Arriving(table, work, rows, what, self._timeout)


class Arriving:
    """Rows on their way."""

    def __init__(
        self, table: Tensor, work: Any, leaving: Tensor, what: str, timeout: float
    ) -> None:
        self._table, self._work, self._leaving = table, work, leaving
        self._what, self._timeout = what, timeout

    def wait(self) -> Tensor:
        """Own rows and those of others, ``[n + h, ...]``.

        Raises:
            RankError: They did not come.
        """
        if self._work is not None:
            with named(self._what, self._timeout):
                self._work.wait()
            self._work = None
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
