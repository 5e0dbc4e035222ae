"""Joins the processes that ``torchrun`` started, and parts them in an orderly way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from nodebits.distributed.errors import RankError
from nodebits.distributed.exchange import named


@dataclass(frozen=True)
class Ranks:
    """The processes.

    Attributes:
        rank: This one.
        world: How many there are.
    """

    rank: int
    world: int


@contextmanager
def joined(timeout: float) -> Iterator[Ranks]:
    """The processes of a run, within which they can send to each other.

    Args:
        timeout: Seconds that one waits for another.

    Raises:
        RankError: They did not find each other.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Ranks(0, 1)
        return
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise RankError(
            f"rank {rank} of {world} did not find the others within {timeout:g} seconds: {error}"
        ) from error
    try:
        yield Ranks(rank, world)
    finally:
        # A process that ends without this is aborted by gloo's threads.
        dist.destroy_process_group()


def gathered(
    rows: Tensor, nodes: Tensor, total: int, ranks: Ranks, timeout: float
) -> Tensor | None:
    """The rows of all nodes on rank 0, in the order of the whole graph; None elsewhere.

    Args:
        rows: ``[n, ...]`` of own nodes.
        nodes: int64 ``[n]``, their numbers in the whole graph.
        total: Nodes of the whole graph.
        ranks: All of them.
        timeout: Of the process group.
    """
    rows = rows.contiguous()
    out = rows.new_empty((total, *rows.shape[1:]))
    if ranks.rank == 0:
        out[nodes] = rows
    with named("gathering the outputs", timeout):
        for other in range(1, ranks.world):
            if ranks.rank == other:
                dist.send(torch.tensor([nodes.numel()], device="cpu"), 0)
                dist.send(nodes, 0)
                dist.send(rows, 0)
            elif ranks.rank == 0:
                count = torch.zeros(1, dtype=torch.int64, device="cpu")
                dist.recv(count, other)
                theirs = nodes.new_empty(int(count))
                piece = rows.new_empty((int(count), *rows.shape[1:]))
                dist.recv(theirs, other)
                dist.recv(piece, other)
                out[theirs] = piece
    return out if ranks.rank == 0 else None
