"""Arguments of the operators and what the reference makes of them, a file for ``replay.cpp``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import flat
from nodebits import ops
from nodebits.core.registry import CODINGS
from nodebits.core.row_layout import RowLayout
from nodebits.ops import Edges, Joined, Other, Source, Value

BITS = range(1, 9)
# Around the ends of vectors of 8, 16, 32 and 64 bytes at every width.
COLUMNS = (1, 7, 8, 17, 33, 64, 65, 129, 200, 257)
# Around the numbers of edges after which sums widen, and empty rows at both ends.
DEGREES = (0, 1, 2, 15, 17, 18, 0, 84, 86, 256, 258, 3, 4371, 5, 0)
SOURCES = 23

Case = tuple[str, tuple[Any, ...], list[Tensor]]  # operator, arguments, results


def write_cases(path: Path) -> dict[str, int]:
    """Writes all cases; returns how many each operator has."""
    found: dict[str, int] = {}
    parts: list[bytes] = []
    with ops.force_isa("reference"):
        for name, args, results in _cases():
            found[name] = found.get(name, 0) + 1
            parts += [_count(len(name)), name.encode(), _bytes(list(args)), _bytes(results)]
    path.write_bytes(_count(sum(found.values())) + b"".join(parts))
    return found


def _count(n: int) -> bytes:
    return struct.pack("<q", n)


def _bytes(value: Any) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, Tensor):
        data = value.contiguous()
        shape = b"".join(_count(n) for n in data.shape)
        return (
            b"t" + _count(data.element_size()) + _count(data.dim()) + shape + data.numpy().tobytes()
        )
    if isinstance(value, (list, tuple)):
        return b"l" + _count(len(value)) + b"".join(_bytes(v) for v in value)
    return b"f" + struct.pack("<d", float(value))


class _Source:
    """Random arguments."""

    def __init__(self, seed: int) -> None:
        self.g = torch.Generator().manual_seed(seed)

    def codes(self, rows: int, cols: int, bits: int) -> Tensor:
        return torch.randint(0, 1 << bits, (rows, cols), generator=self.g, dtype=torch.uint8)

    def packed(self, rows: int, cols: int, bits: int) -> Tensor:
        return ops.pack(self.codes(rows, cols, bits), bits)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.g)

    def positive(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.g) + 0.05

    def graph(self) -> tuple[Tensor, Tensor]:
        indptr = torch.tensor([0, *DEGREES]).cumsum(0)
        indices = torch.randint(0, SOURCES, (int(indptr[-1]),), generator=self.g)
        return indptr, indices.int()

    def layout(self, rows: int, most: int) -> RowLayout:
        return RowLayout.of(torch.randint(1, most + 1, (rows,), generator=self.g))

    def finish(self, rows: int, cols: int, bits: list[int], relu: bool) -> tuple[Any, ...]:
        """Quantizers with one scale and one per column in turn, a third one of several widths."""
        lengths = [1 if i % 2 == 0 else cols for i in range(len(bits))]
        scale: list[Tensor] = [self.positive(n) for n in lengths]
        zero: list[Tensor] = [self.positive(n) * 3 for n in lengths]
        factor = [self.positive(rows) if i % 2 == 0 else None for i in range(len(bits))]
        places: list[list[Tensor | None]] = [[None] * len(bits) for _ in range(3)]
        if len(bits) == 3:
            layout = self.layout(rows, bits[1])
            zero[2], places[0][2] = self.positive(8), layout.widths
            if relu:
                places[2][2] = 8 - layout.widths
            else:
                scale[2], places[1][2] = self.positive(rows), layout.position
        post = (self.positive(cols), self.normal(cols)) if relu else (None, None)
        return (relu, scale, zero, bits, factor, *places, *post)


def _outputs(bits: int, turn: int) -> list[int]:
    return ([], [bits], [8, bits, 3])[turn % 3]


def _heads(cols: int) -> int:
    return next((h for h in (3, 4) if cols > h and cols % h == 0), 1)


def _cases() -> Iterator[Case]:
    for cols, bits in product(COLUMNS, BITS):
        source = _Source(1000 * cols + bits)
        yield from _rows(source, cols, bits)
        yield from _sums(source, cols, bits)
        yield from _products(source, cols, bits)
        yield from _propagation(source, cols, bits)
        yield from _pairs(source, cols, bits)
    for heads, bits in product((1, 2, 3, 8), BITS):
        s = _Source(heads + 10 * bits)
        args = (*s.graph(), s.normal(SOURCES, heads), s.normal(len(DEGREES), heads), 0.2, bits)
        yield "edge_softmax", args, list(ops.edge_softmax(*args))


def _pairs(s: _Source, cols: int, bits: int) -> Iterator[Case]:
    rows, other_bits = len(DEGREES), 9 - bits
    graph = s.graph()
    source, other = s.packed(SOURCES, cols, bits), s.packed(rows, cols, other_bits)
    heads, places = _heads(cols), torch.randint(0, rows, graph[1].shape, generator=s.g)
    vector = torch.randint(-255, 256, (cols,), generator=s.g).int()
    floor = torch.randint(0, 1 << bits, (cols,), generator=s.g).int()
    factors = s.positive(heads) / 9999, s.normal(heads) / 9999
    edges, theirs, mine = Edges(*graph), Source(source, bits, cols), (other, other_bits, cols)
    of_edges = s.packed(rows, cols, other_bits), other_bits, cols
    flat_rows = (*graph, source, bits, cols)
    target, none = (other, other_bits), (None, other_bits, None)
    affine = s.normal(cols), s.positive(cols)
    gates = torch.randint(0, 256, (768,), generator=s.g, dtype=torch.uint8)
    weights = torch.randint(1, 256, (512,), generator=s.g, dtype=torch.uint8)
    for some in ([], [Joined(*of_edges, 0, places)]):
        joined = (of_edges[0], other_bits, places) if some else none
        for more in ((vector, floor), (None, None)):
            scored = (edges, theirs, Other(*mine), some, *more, *factors)
            flat_scores = (*flat_rows, *joined, *target, *more, *factors)
            yield "pair_scores", flat_scores, [ops.pair_scores(*scored)]
            yield "attention_codes", (*flat_scores, bits), list(ops.attention_codes(*scored, bits))
        summed = ops.rectified_sum(edges, theirs, some, floor, *affine)
        yield "rectified_sum", (*flat_rows, *joined, floor, *affine), [summed]
        for falling in (False, True):
            args = edges, theirs, some, floor, weights, falling, *affine
            flat_sums = (*flat_rows, *joined, floor, weights, int(falling), *affine)
            yield "rectified_softmax", flat_sums, [ops.rectified_softmax(*args)]
        gated = edges, theirs, Other(*mine), Value(*theirs), some * 2, gates, 5, *affine
        yield (
            "gated_sum",
            (*flat_rows, *joined, *target, gates, 5, *affine),
            [ops.gated_sum(*gated)],
        )


def _rows(s: _Source, cols: int, bits: int) -> Iterator[Case]:
    rows = 13
    codes = s.codes(rows, cols, bits)
    packed = ops.pack(codes, bits)
    yield "pack", (codes, bits), [packed]
    yield "unpack", (packed, bits, cols), [codes]
    for axis in (-1, 0, 1):
        n = {-1: 1, 0: rows, 1: cols}[axis]
        x = s.normal(rows, cols)
        x[0, 0], x[-1, -1] = float("inf"), float("nan")
        q = (x, s.positive(n), s.positive(n) * (1 << bits), axis, bits)
        factor = s.positive(rows) if axis else None
        yield "quantize_pack", (*q, factor), [ops.quantize_pack(*q, factor)]
        yield "fake_quantize", q, [ops.fake_quantize(*q)]
        layout = s.layout(rows, bits)
        mixed = (s.normal(rows, cols), q[1], s.positive(8), axis, layout.widths, layout.position)
        made = ops.quantize_pack_bucketed(*mixed, factor)
        yield "quantize_pack_bucketed", (*mixed, factor), [made]
        shift = 8 - layout.widths if axis == 0 else None
        back = (made, layout.order, list(layout.counts), cols, shift)
        yield "unpack_bucketed", back, [flat.unpack_bucketed(*back)]
    acc = torch.randint(-9999, 9999, (rows, cols), generator=s.g, dtype=torch.int32)
    col = s.positive(cols)
    for heads in {1, _heads(cols)}:
        row = s.positive(rows, heads)
        epilogue: tuple[Tensor | None, ...]
        for epilogue in ((s.normal(cols), row, row, s.normal(cols)), (None,) * 4):
            args = (acc, col, *epilogue)
            yield "rescale", args, [flat.rescale(*args)]


def _sums(s: _Source, cols: int, bits: int) -> Iterator[Case]:
    rows = len(DEGREES)
    args = (*s.graph(), s.packed(SOURCES, cols, bits), bits, cols)
    plain = flat.spmm(*args)
    for sizes in (None, [4, 5], [rows, 1 << 16]):
        yield "spmm", (*args, sizes, 0), [plain]
    for coding in map(CODINGS.get, CODINGS.names()):
        if coding.number and bits in coding.widths:
            codes = s.codes(SOURCES, cols, bits) % (coding.top(bits) + 1)
            coded = coding.encode(ops.pack(codes, bits), bits, cols)
            made = ops.spmm(Edges(*args[:2]), Source(coded, bits, cols, coding.number))
            yield "spmm", (*args[:2], coded, bits, cols, None, coding.number), [made]
    for heads in {1, _heads(cols), cols if cols <= 33 else 1}:
        weight = s.codes(args[1].numel(), heads, 8)
        yield "spmm_weighted", (*args, weight), [flat.spmm_weighted(*args, weight)]
        row, col = s.positive(rows, heads), s.normal(cols)
        epilogue = (None, None, s.positive(cols), col, row, row, col, None, None)
        end = s.finish(rows, cols, _outputs(bits, heads), bits % 2 == 0)
        fused = (*args, weight, None, *epilogue, *end)
        yield "fused_spmm", fused, list(flat.fused_spmm(*fused))
    own = s.packed(rows, cols, bits)
    whole = torch.randint(-9, 9, (2, rows), generator=s.g, dtype=torch.int32)
    for turn, sizes in enumerate((None, [4, 5])):
        row, col = s.positive(rows, 1), s.normal(cols)
        epilogue = (*whole, s.positive(cols), col, None, row, None, own, torch.tensor([1.3]))
        end = s.finish(rows, cols, _outputs(bits, turn + cols), bits % 2 == 0)
        results = flat.fused_spmm(*args, None, None, *epilogue, *end)
        yield "fused_spmm", (*args, None, sizes, *epilogue, *end), list(results)


def _products(s: _Source, depth: int, bits: int) -> Iterator[Case]:
    rows = 14
    x = s.packed(rows, depth, bits)
    for i, (w_bits, m) in enumerate(((9 - bits, 1), (bits, 17), (3, 65), (8, 41))):
        w = s.packed(m, depth, w_bits)
        midrise = w_bits < 8 and m == 17
        args = (x, bits, depth, w, w_bits, midrise)
        yield "gemm", args, [flat.gemm(*args)]
        col, row = s.positive(m), s.positive(rows, 1)
        end = s.finish(rows, m, _outputs(bits, i + depth), bits % 2 == 0)
        second = (s.packed(rows, 2 * depth + 1, 4), 4, 2 * depth + 1, s.packed(m, 2 * depth + 1, 2))
        pairs = zip(
            (*args, col, col, None, None), (*second, 2, True, col, None, row, col), strict=True
        )
        both = (*(list(p) for p in pairs), *end)
        yield "fused_gemm", both, list(flat.fused_gemm(*both))
        layout = s.layout(rows, bits)
        codes = s.codes(1, layout.bytes(depth), 8).view(-1)
        of = (codes, layout.order, list(layout.counts), depth, w, w_bits, midrise)
        epilogue = (col, s.normal(m), row, row, col) if i else (col, None, None, None, None)
        yield (
            "fused_gemm_bucketed",
            (*of, *epilogue, *end),
            list(flat.fused_gemm_bucketed(*of, *epilogue, *end)),
        )


def _propagation(s: _Source, cols: int, bits: int) -> Iterator[Case]:
    if cols > 65:
        return
    rows = len(DEGREES)
    indptr, indices = s.graph()
    indices = indices % rows
    for steps, laplacian in (([0.0], False), ([0.0, 0.5, 0.2], True)):
        sums = len(steps) + sum(c != 0 for c in steps)
        widths = [bits, 9 - bits, bits, 4, 8][:sums]
        made = tuple(s.positive(sums, cols) for _ in range(3))
        args = (indptr, indices, s.normal(rows, cols), s.positive(rows), *made, widths, steps)
        yield "propagate", (*args, laplacian, 0.1), [flat.propagate(*args, laplacian, 0.1)]
