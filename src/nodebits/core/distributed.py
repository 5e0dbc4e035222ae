"""What all processes of a distributed training must agree on: ranges, from the rows of all of them.

Without an initialised process group of ``torch.distributed`` nothing here has an effect. With one,
every function is a collective: all ranks must call it equally often, with rows or without.

Tensors may be on any device: they travel on one that the group's backend serves (``nccl`` the CUDA
device of the rank, which ``torch.cuda.set_device`` chose, ``gloo`` the CPU), and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nodebits.core.errors import ShapeError

T = TypeVar("T")
# Values that a rank contributes at most; beyond, every k-th row and the extremes of each column.
SHARED_VALUES = 1 << 17
_LEAST_ROWS = 64


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def travels_on(backend: str, device: torch.device) -> torch.device:
    """The device on which tensors of ``device`` travel between ranks.

    Args:
        backend: Of the group: ``"nccl"``, ``"gloo"``, or one for each device, such as
            ``"cpu:gloo,cuda:nccl"``; others are trusted with any device.
        device: That of the tensors.
    """
    by_device = dict(part.split(":") for part in backend.split(",") if ":" in part)
    own = by_device.get(device.type, backend)
    if own == "nccl" and device.type != "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    # Of the collectives that are used here gloo has some for tensors of CUDA, not all.
    return torch.device("cpu") if own == "gloo" else device


def _sent(x: Tensor) -> Tensor:
    """A copy to be sent, which collectives may write to."""
    there = travels_on(dist.get_backend(), x.device)
    return x.to(there) if x.device != there else x.clone()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of ``values`` over all ranks."""
    return values if world_size() == 1 else _reduced(values, dist.ReduceOp.SUM)


def _reduced(values: Tensor, how: Any) -> Tensor:
    total = _sent(values)
    dist.all_reduce(total, how)
    return total.to(values.device)


def _of_all(x: Tensor) -> list[Tensor]:
    """``x`` of every rank, of the same shape on all."""
    sent = _sent(x)
    parts = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(parts, sent)
    return [part.to(x.device) for part in parts]


def on_any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` holds on one rank at least; they ask each other by way of ``device``."""
    if world_size() == 1:
        return flag
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device)) > 0)


class Together(Generic[T]):
    """Items while all ranks have one more, and none was told to stop.

    Collectives of all ranks follow every item: one that went on alone would wait for ever.

    Args:
        items: Of this rank.
        device: By way of which ranks ask each other.
        stop: Whether this rank was told to; asked between items.

    Attributes:
        stopped: Whether some rank was.
    """

    def __init__(self, items: Iterable[T], device: torch.device, stop: Callable[[], bool]) -> None:
        self._items, self._device, self._stop = items, device, stop
        self.stopped = False

    def __iter__(self) -> Iterator[T]:
        items, first = iter(self._items), True
        while True:
            stop = not first and self._stop()
            item = None if stop else next(items, None)
            first = False
            if world_size() > 1:
                own = torch.tensor([float(stop), float(item is None)], device=self._device)
                stop, ended = (sum_over_ranks(own) > 0).tolist()
                item = None if ended else item
            self.stopped = stop
            if item is None:
                return
            yield item


def rows_of_all_ranks(x: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks: the same tensor everywhere.

    Args:
        x: float32 ``[N, C]``; N may differ between ranks and be 0.

    Returns:
        float32 ``[M, C]``; of a rank with many rows an even sample, and its extremes by column.

    Raises:
        ShapeError: If ranks have different C, on all of them.
    """
    if world_size() == 1:
        return x
    limit = max(SHARED_VALUES // max(x.size(1), 1), _LEAST_ROWS)
    if x.size(0) > limit:
        extremes = x.amin(0, keepdim=True), x.amax(0, keepdim=True)
        x = torch.cat([x[:: -(-x.size(0) // limit)], *extremes])
    shapes = _shapes(x)
    counts = [rows for rows, _ in shapes]
    columns = sorted({c for _, c in shapes})
    if len(columns) > 1:
        raise ShapeError(f"ranks have tensors of {columns} columns at one site")
    if max(counts) == 0:
        return x
    return _gathered(x, counts)


def all_rows_of_ranks(x: Tensor) -> Tensor:
    """All rows of all ranks, in the order of ranks: ``[N, C]`` -> ``[M, C]``, C alike."""
    return x if world_size() == 1 else _gathered(x, [rows for rows, _ in _shapes(x)])


def _gathered(x: Tensor, counts: list[int]) -> Tensor:
    padded = x.new_zeros(max(counts), x.size(1))
    padded[: x.size(0)] = x
    return torch.cat([part[:n] for part, n in zip(_of_all(padded), counts, strict=True)])


def largest_of_ranks(x: Tensor) -> Tensor:
    """Of every entry the largest magnitude on any rank, negative where one of them is.

    Args:
        x: float32 ``[N, C]``, of the same nodes on all ranks.

    Raises:
        ShapeError: If ranks have other numbers of nodes, on all of them.
    """
    if world_size() == 1:
        return x
    shapes = sorted(set(_shapes(x)))
    if len(shapes) > 1:
        raise ShapeError(
            f"ranks have tensors {shapes} at a site with parameters for each node: all ranks must "
            "train on the same graph, or on batches of graphs (nodebits.graph_scope(batch=...))"
        )
    least = _reduced(x, dist.ReduceOp.MIN)
    largest = _reduced(x.abs(), dist.ReduceOp.MAX)
    return torch.where(least < 0, -largest, largest)


def _shapes(x: Tensor) -> list[tuple[int, int]]:
    shapes = _of_all(torch.tensor(x.shape, device=x.device))
    return [(int(rows), int(columns)) for rows, columns in shapes]


@torch.no_grad()
def take_from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Overwrites small tensors with those of rank 0.

    Equal data need not give equal bits where ranks have different processors or thread counts.

    Args:
        tensors: float32, bool or uint8, of the same shapes on all ranks; others are left alone.
    """
    own = [t for t in tensors if t.dtype in (torch.float32, torch.bool, torch.uint8)]
    if world_size() == 1 or not own:
        return
    # Those of a model on a device; a few may have stayed on the CPU.
    there = travels_on(dist.get_backend(), own[0].device)
    flat = torch.cat([t.detach().reshape(-1).float().to(there) for t in own])
    dist.broadcast(flat, 0)
    for tensor, values in zip(own, flat.split([t.numel() for t in own]), strict=True):
        tensor.copy_(values.view_as(tensor))
