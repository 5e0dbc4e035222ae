"""Memory of the host that a device reads in place: tables larger than its own memory.

Nothing is copied behind anyone's back. A tensor is read so only after :func:`readable_copy` made
it, or after torch pinned it; any other is refused by name.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, ShapeError
from nodebits.ops import checks
from nodebits.ops.backends import backends


class HostMemory(Protocol):
    """The module ``host`` of a backend whose device reads memory of the host."""

    def problem(self) -> str | None:
        """Why the device cannot read it here; None where it can."""

    def readable(self, t: Tensor) -> bool:
        """Whether kernels of the device can read a tensor of the CPU."""

    def readable_copy(self, t: Tensor, device: torch.device) -> Tensor:
        """A copy of a tensor of the CPU that they can read."""

    def take_rows(self, table: Tensor, index: Tensor) -> Tensor:
        """The rows ``index`` of a readable table, on the device of the index."""


@cache
def memory_for(kind: str) -> HostMemory | None:
    """How devices of a kind (``"cuda"``) read the host's memory; None where they do not."""
    for backend in backends():
        if getattr(backend, "READS_HOST_FROM", None) == kind:
            return cast("HostMemory", import_module(f"{backend.__name__}.host"))
    return None


def reader(device: torch.device | str) -> torch.device:
    """A device that can read the host's memory; the CPU is one.

    Raises:
        ConfigError: If there is no such device, or it cannot; says why.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{device!r} is no device: name one such as 'cuda' or 'cuda:1', or 'cpu'"
        ) from error
    if found.type == "cpu":
        return found
    memory = memory_for(found.type)
    why = f"nothing here reads the host's memory from {found.type}"
    why_not = why if memory is None else memory.problem()
    if why_not is not None:
        raise ConfigError(
            f"rows in the host's memory cannot be read by {str(found)!r}: {why_not}; on_host('cpu')"
            " keeps them for a model on the CPU"
        )
    return torch.empty(0, device=found).device  # with its number


def readable_copy(t: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host that a :func:`reader` reads in place; itself where it can already.

    Raises:
        ConfigError: If the tensor is not in the host's memory.
        OutOfMemoryError: If the host has no memory for a copy, or it cannot be pinned.
    """
    if t.device.type != "cpu":
        raise ConfigError(f"rows on {t.device} are not in the host's memory: pack them on the CPU")
    memory = None if device.type == "cpu" else memory_for(device.type)
    t = checks.plain(t)
    if memory is None or not t.numel() or memory.readable(t):
        return t
    return memory.readable_copy(t, device)


def apart(table: Tensor, index: Tensor) -> bool:
    """Whether a table is read by another device than the one that it lies on."""
    return table.device != index.device


def why_unreadable(t: Tensor, device: torch.device) -> str | None:
    """Why a device cannot read a tensor where it lies; None where it can."""
    if t.device == device:
        return None
    memory = memory_for(device.type)
    if t.device.type != "cpu" or memory is None:
        return f"{device.type} reads no memory of {t.device.type}"
    problem = memory.problem()
    if problem is not None:
        return problem
    if t.is_contiguous() and not t.is_neg() and (not t.numel() or memory.readable(t)):
        return None
    return "it is not pinned; on_host of packed features pins them"


def check_readable(device: torch.device, name: str, t: Tensor) -> None:
    """Refuses a tensor that a device cannot read where it lies.

    Raises:
        ShapeError: Names it and says why.
    """
    why = why_unreadable(t, device)
    if why is not None:
        raise ShapeError(f"{name} is on {t.device} and cannot be read by {device}: {why}")


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table in the host's memory, taken by the device of the index.

    Args:
        table: ``[N, ...]`` of any dtype.
        index: int64 ``[n]``, compared with the rows already, as the table with the device.
    """
    memory = memory_for(index.device.type)
    assert memory is not None
    return memory.take_rows(table.detach(), index)
