"""Whether a tensor still has the memory that it speaks of, and what is free goes back."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor
from torch.nn import Parameter

from nodebits.core.errors import ShapeError


def check_memory(t: Tensor, what: str) -> None:
    """Refuses a tensor whose storage was freed or cut: reading it would leave the memory.

    Args:
        t: Any tensor; those that are not strided, or not on the CPU, are let through.
        what: What it is, for the message.

    Raises:
        ShapeError: Names it and its shape.
    """
    if type(t) not in (Tensor, Parameter) or t.is_nested or t.device.type != "cpu":
        return
    if t.layout != torch.strided or not t.numel():
        return
    last = sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
    if t.untyped_storage().nbytes() < (t.storage_offset() + last + 1) * t.element_size():
        raise ShapeError(
            f"{what} {list(t.shape)} has no memory: it was freed, as reversible and sharded layers "
            "do with their inputs (untyped_storage().resize_(0)); pass a copy that was made before"
        )


def give_back_free_memory() -> None:
    """Lets the allocator return what was freed; the system counts it as taken until then.

    Source: ``malloc_trim`` of glibc. With another C library nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
