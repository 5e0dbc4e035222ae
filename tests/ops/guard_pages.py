"""Every kernel on buffers that end, or begin, at a page that may not be touched.

python tests/ops/guard_pages.py ISA          ends by a signal if a kernel leaves its buffers
python tests/ops/guard_pages.py ISA trespass does so on purpose
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import torch
from operator_inputs import codes, generator, graph
from torch import Tensor

from nodebits import ops
from nodebits.ops import backend

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Buffers between forbidden pages, at the end or at the beginning of what is allowed."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self._maps: list[mmap.mmap] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer filled with a pattern, as memory that was used before is."""
        count = 1
        for n in shape:
            count *= n
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        size = count * dtype.itemsize
        pages = -(-size // PAGE)
        area = mmap.mmap(-1, (pages + 2) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for page in (0, pages + 1):
            if _LIBC.mprotect(address + page * PAGE, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._maps.append(area)
        start = PAGE + (pages * PAGE - size if self.at_end else 0)
        raw = torch.frombuffer(memoryview(area)[start : start + size], dtype=torch.uint8)
        raw.fill_(0xA5)
        return raw.view(dtype).view(shape)

    def copy(self, t: Tensor) -> Tensor:
        """The same values in such a buffer."""
        made = self.empty(tuple(t.shape), t.dtype)
        return made.copy_(t) if t.numel() else made


Case = tuple[str, tuple[Any, ...]]  # name of a kernel, its arguments


def row_cases(g: Guarded, cols: int, r: torch.Generator) -> Iterator[Case]:
    """Kernels on float rows."""
    x = g.copy(torch.randn(9, cols, generator=r))
    col = g.copy(torch.rand(cols, generator=r) + 0.1)
    row = g.copy(torch.rand(9, 1, generator=r))
    acc = g.copy(torch.randint(-1000, 1000, (9, cols), generator=r, dtype=torch.int32))
    y = g.empty((9, cols), torch.float32)
    grads = g.empty((cols,), torch.float32), g.empty((cols,), torch.float32)
    yield "rescale", (acc, col, col, row, row, col, 1, y, 1)
    yield "fake_quantize", (x, col, col, 1, 4, y, 1)
    yield "fake_quantize_backward", (x, x, col, col, 1, 4, 0, y, *grads, 1)


def packed_cases(g: Guarded, cols: int, bits: int, r: torch.Generator) -> Iterator[Case]:
    """Kernels on packed rows."""
    x, factor = g.copy(torch.randn(9, cols, generator=r)), g.copy(torch.rand(9, generator=r))
    scale = g.copy(torch.full((1,), 0.1))
    u = g.copy(codes(9, cols, bits, r))
    p = g.copy(ops.pack(u, bits))
    p_out = g.empty(tuple(p.shape), p.dtype)
    yield "pack", (u, bits, p_out, 1)
    yield "unpack", (p, bits, g.empty(tuple(u.shape), u.dtype), 1)
    yield "quantize_pack", (x, scale, scale, -1, bits, factor, p_out, 1)
    indptr, indices = (g.copy(t) for t in graph([0, 1, 2, 3, 50, 300], 9, r))
    indices[-40:] = 8  # the last row, whose end is the end of the table
    out = g.empty((6, cols), torch.int32)
    yield "spmm", (indptr, indices, p, bits, cols, None, None, out, 1)
    blocks = g.copy(ops.edge_blocks(indptr, indices, 9, (4, 5)))
    yield "spmm", (indptr, indices, p, bits, cols, None, blocks, out, 1)
    for heads in (1, cols):
        weight = g.copy(codes(indices.numel(), heads, 8, r))
        yield "spmm", (indptr, indices, p, bits, cols, weight, None, out, 1)
    for m in (1, 17, 41, 64):
        w = g.copy(ops.pack(codes(m, cols, bits, r), bits))
        yield "gemm", (p, bits, cols, w, bits, False, g.empty((9, m), torch.int32), 1)


def edge_cases(g: Guarded, r: torch.Generator) -> Iterator[Case]:
    """Kernels on edges."""
    indptr, indices = (g.copy(t) for t in graph([0, 1, 17, 300], 9, r))
    for heads in (1, 3, 8):
        source = g.copy(torch.randn(9, heads, generator=r))
        target = g.copy(torch.randn(4, heads, generator=r))
        made = g.empty((318, heads), torch.uint8), g.empty((4, heads), torch.int32)
        yield "edge_softmax", (indptr, indices, source, target, 0.2, 8, *made, 1)
    nodes = g.copy(torch.randint(0, 9, (77,), generator=r))
    csr = [g.empty((10,), torch.int64), g.empty((77,), torch.int32), g.empty((77,), torch.int64)]
    yield "coo_to_csr", (nodes, nodes, 9, *csr, 1)
    yield "first_outside", (nodes, 9, 1)


def cases(g: Guarded) -> Iterator[Case]:
    """Calls of every kernel with all arrays in guarded buffers."""
    r = generator()
    yield from edge_cases(g, r)
    for cols in (1, 7, 16, 33, 64, 100, 128, 129, 257):
        yield from row_cases(g, cols, r)
        for bits in range(1, 9):
            yield from packed_cases(g, cols, bits, r)


def main() -> None:
    """Runs all cases on one level."""
    isa, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    with ops.force_isa(isa):
        for at_end in (True, False):
            guarded = Guarded(at_end)
            if rest:
                t = guarded.empty((PAGE,), torch.uint8)
                ctypes.string_at(t.data_ptr() + (PAGE if at_end else -1), 1)
            count = 0
            for name, args in cases(guarded):
                print(name, [a.shape if isinstance(a, Tensor) else a for a in args], flush=True)
                getattr(backend.compiled(), name)(*args)
                count += 1
    print(f"{count} cases stayed inside their buffers")


if __name__ == "__main__":
    main()
