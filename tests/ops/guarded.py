"""Buffers that end, or begin, at a page that may not be touched."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.registry import CODINGS

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

Case = tuple[str, tuple[Any, ...]]  # name of a kernel, its arguments


class Guarded:
    """Buffers between forbidden pages, at the end or at the beginning of what is allowed."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer filled with a pattern, as memory that was used before is.

        The tensor owns the pages: a process may have only some 65,000 mappings, and all cases
        together make more.
        """
        size = math.prod(shape) * dtype.itemsize
        if size == 0:
            return torch.empty(shape, dtype=dtype)
        pages = -(-size // PAGE)
        area = mmap.mmap(-1, (pages + 2) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for page in (0, pages + 1):
            if _LIBC.mprotect(address + page * PAGE, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        start = PAGE + (pages * PAGE - size if self.at_end else 0)
        raw = torch.frombuffer(memoryview(area)[start : start + size], dtype=torch.uint8)
        raw.fill_(0xA5)
        return raw.view(dtype).view(shape)

    def copy(self, t: Tensor) -> Tensor:
        """The same values in such a buffer."""
        made = self.empty(tuple(t.shape), t.dtype)
        return made.copy_(t) if t.numel() else made


class Size(NamedTuple):
    """Shape of a case's rows, and on how many threads it runs."""

    rows: int
    cols: int
    threads: int


class Source:
    """Inputs, each made once and shared by all cases that ask for its like, and outputs."""

    def __init__(self, guarded: Guarded, generator: torch.Generator) -> None:
        self.guarded = guarded
        self.generator = generator
        self._made: dict[Hashable, Any] = {}

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def copy(self, t: Tensor) -> Tensor:
        """The values of ``t``."""
        return self.guarded.copy(t)

    def floats(self, *shape: int) -> Tensor:
        """A buffer to write to."""
        return self.guarded.empty(shape, torch.float32)

    def ints(self, *shape: int) -> Tensor:
        """A buffer to write to."""
        return self.guarded.empty(shape, torch.int32)

    def longs(self, *shape: int) -> Tensor:
        """A buffer to write to."""
        return self.guarded.empty(shape, torch.int64)

    def bytes(self, *shape: int) -> Tensor:
        """A buffer to write to."""
        return self.guarded.empty(shape, torch.uint8)

    def normal(self, *shape: int) -> Tensor:
        """Values of both signs."""
        made: Tensor = self._once(
            ("normal", shape), lambda: self.copy(torch.randn(shape, generator=self.generator))
        )
        return made

    def positive(self, *shape: int) -> Tensor:
        """Values from 0.1 on, for scales and factors."""
        made: Tensor = self._once(
            ("positive", shape),
            lambda: self.copy(torch.rand(shape, generator=self.generator) + 0.1),
        )
        return made

    def small(self, rows: int) -> Tensor:
        """Integers around 0."""
        made: Tensor = self._once(
            ("small", rows),
            lambda: self.copy(torch.randint(-3, 9, (rows,), generator=self.generator).int()),
        )
        return made

    def codes(self, rows: int, cols: int, bits: int) -> Tensor:
        """uint8 ``[rows, cols]`` below ``2^bits``."""

        def make() -> Tensor:
            made = torch.empty(rows, cols, dtype=torch.uint8)
            return self.copy(made.random_(0, 1 << bits, generator=self.generator))

        made: Tensor = self._once(("codes", rows, cols, bits), make)
        return made

    def packed(self, rows: int, cols: int, bits: int) -> Tensor:
        """The same, packed."""
        made: Tensor = self._once(
            ("packed", rows, cols, bits),
            lambda: self.copy(ops.pack(self.codes(rows, cols, bits), bits)),
        )
        return made

    def graph(self, degrees: tuple[int, ...], sources: int) -> tuple[Tensor, Tensor]:
        """indptr and indices; the last edges lead to the last row, where the table ends."""

        def make() -> tuple[Tensor, Tensor]:
            indptr = torch.tensor([0, *degrees]).cumsum(0)
            indices = torch.empty(int(indptr[-1]), dtype=torch.int32)
            indices.random_(0, sources, generator=self.generator)
            indices[-40:] = sources - 1
            return self.copy(indptr), self.copy(indices)

        made: tuple[Tensor, Tensor] = self._once(("graph", degrees, sources), make)
        return made


def codings_of(bits: int) -> list[int]:
    """Numbers of the codings that exist in a width."""
    every = map(CODINGS.get, CODINGS.names())
    return [coding.number for coding in every if bits in coding.widths]
