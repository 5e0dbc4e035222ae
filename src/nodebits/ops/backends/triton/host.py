"""Memory of the host that kernels read over the bus: pinned pages, which the driver maps.

Triton hands a kernel the address that the driver gives such a page in the device's address space
(``CU_POINTER_ATTRIBUTE_DEVICE_POINTER``), so a kernel reads it like any other.

Pages are registered where they are. ``Tensor.pin_memory`` rounds a size up to a power of two, up to
twice the memory, and may hand a page on that a kernel still reads.

Source: CUDA C++ Programming Guide, "Mapped memory" and "Unified virtual address space".
"""

from __future__ import annotations

import mmap
import os
import sys
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import OutOfMemoryError
from nodebits.ops.backends.triton import choice

# Readable by all devices, and mapped: cudaHostRegisterPortable and cudaHostRegisterMapped.
_FLAGS = 1 | 2


def problem() -> str | None:
    """Why kernels cannot read the host's memory; None where they can."""
    return choice.device_problem() or choice.triton_problem()


def readable(t: Tensor) -> bool:
    """Whether its pages are pinned, by us or by torch."""
    return t.is_pinned()


class Pages(mmap.mmap):
    """Pages of their own, pinned for as long as a tensor lies in them."""

    _device: torch.device | None = None
    _process = 0
    _address = 0

    def pin(self, address: int, device: torch.device) -> int:
        """Registers them with the driver.

        Args:
            address: Of the first.
            device: That reads them.

        Returns:
            The driver's code, 0 where they are pinned.
        """
        code = int(torch.cuda.cudart().cudaHostRegister(address, len(self), _FLAGS))
        if code == 0:
            self._device, self._process, self._address = device, os.getpid(), address
        return code

    def __del__(self) -> None:
        # A forked child holds no registration, and a process that ends gives all back by itself.
        device = self._device
        if device is None or self._process != os.getpid() or sys.is_finalizing():
            return
        torch.cuda.synchronize(device)  # a kernel may still read them
        torch.cuda.cudart().cudaHostUnregister(self._address)


def readable_copy(t: Tensor, device: torch.device) -> Tensor:
    """A pinned copy, in pages that no other tensor shares.

    Args:
        t: Contiguous, on the CPU, with values.
        device: That reads it.

    Raises:
        OutOfMemoryError: If there is no memory, or the driver cannot pin it.
    """
    size = t.numel() * t.element_size()
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        pages = Pages(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise _no_memory(size, str(error)) from error
    made = torch.frombuffer(pages, dtype=torch.uint8, count=size).view(t.dtype).view(t.shape)
    made.copy_(t)
    code = pages.pin(made.data_ptr(), device)
    if code:
        raise _no_memory(size, f"the driver refused to pin them (error {code} of CUDA)")
    return made


def _no_memory(size: int, why: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{size} bytes of features cannot be pinned in the host's memory: {why}; pack them with "
        "fewer bits, free memory of the host, or raise the limit of the container or of the user "
        "(ulimit -l)"
    )


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a pinned table, byte for byte.

    Args:
        table: ``[N, ...]``, contiguous.
        index: int64 ``[n]``, on the device.
    """
    launching: Any = import_module("nodebits.ops.backends.triton.launch")
    kernels: Any = import_module("nodebits.ops.backends.triton.kernels.rows")
    out = torch.empty((index.numel(), *table.shape[1:]), dtype=table.dtype, device=index.device)
    if not out.numel():
        return out
    size = table[0].numel() * table.element_size()
    units = [one.reshape(-1).view(torch.uint8) for one in (table, out)]
    if all(size % 4 == one.storage_offset() % 4 == one.data_ptr() % 4 == 0 for one in units):
        units, size = [one.view(torch.int32) for one in units], size // 4
    grid, tile = launching.tiles("take", index.numel(), size)
    launching.launch(
        kernels.take, grid, out, units[0], index, units[1], index.numel(), size, **tile
    )
    return out
