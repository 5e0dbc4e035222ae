"""Calls of the kernels that fuse several operators, with all arrays in guarded buffers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from guard_cases import degrees_for, heads_for
from guarded import Case, Size, Source, codings_of
from torch import Tensor

from nodebits import ops
from nodebits.core.packing import row_bytes
from nodebits.core.row_layout import RowLayout


def finish(s: Source, rows: int, cols: int, bits: list[int], relu: bool) -> tuple[Any, ...]:
    """Quantizers with one scale and one per column in turn, then their outputs, or the floats.

    A third one makes rows of several widths, in buckets or as shifted bytes. An affine comes before
    a ReLU.
    """
    lengths = [1 if i % 2 == 0 else cols for i in range(len(bits))]
    scale, zero = [s.positive(n) for n in lengths], [s.positive(n) for n in lengths]
    factor = [s.positive(rows) if i % 2 == 0 else None for i in range(len(bits))]
    out = [s.bytes(rows, row_bytes(cols, b)) for b in bits] or [s.floats(rows, cols)]
    places: list[list[Tensor | None]] = [[None] * len(bits) for _ in range(3)]
    if len(bits) == 3:
        widths = torch.randint(1, bits[1] + 1, (rows,), generator=s.generator)
        layout, aligned = RowLayout.of(widths), relu
        zero[2], places[0][2] = s.positive(8), s.copy(layout.widths)
        if aligned:
            places[2][2] = s.copy((8 - widths).to(torch.uint8))
            out[2] = s.bytes(rows, cols)
        else:
            scale[2], places[1][2] = s.positive(rows), s.copy(layout.position)
            out[2] = s.bytes(layout.bytes(cols))
    post = (s.positive(cols), s.positive(cols)) if relu else (None, None)
    quantizers = list(zip(scale, zero, bits, factor, *places, strict=True))
    return (relu, quantizers, *post), out


def mixed_product_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """A product of rows of several widths, the widest `bits`, and what follows."""
    rows, depth, threads = size
    widths = torch.randint(1, bits + 1, (rows,), generator=s.generator)
    widths[rows // 2] = bits
    layout = RowLayout.of(widths)
    x = s.codes(1, layout.bytes(depth), 8).view(-1)
    where = (x, s.copy(layout.order), list(layout.counts), depth)
    for i, (w_bits, m) in enumerate(((bits, 1), (9 - bits, 17), (4, 65))):
        w = s.packed(m, depth, w_bits)
        col, row = s.positive(m), s.positive(rows, 1)
        epilogue = (col, col, row, row, col) if i else (col, None, None, None, None)
        end = finish(s, rows, m, outputs(bits, i + depth), bits % 2 == 0)
        midrise = w_bits < 8 and m == 17
        yield "fused_gemm_bucketed", (where, (w, w_bits, midrise), epilogue, *end, threads)


def outputs(bits: int, turn: int) -> list[int]:
    """Widths of the quantizers that read a result, another list every turn."""
    return ([], [bits], [8, bits, 3])[turn % 3]


def square_blocks(s: Source, indptr: Tensor, indices: Tensor, rows: int) -> Tensor:
    """Edges of a square adjacency regrouped: several groups and blocks."""
    plan = (4, 5) if rows < 500 else (256, 600)
    return s.copy(ops.edge_blocks(indptr, indices, rows, plan))


def fused_sum_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """A neighbour sum and what follows it."""
    _, cols, threads = size
    degrees = degrees_for(size)
    rows = len(degrees)
    indptr, indices = s.graph(degrees, rows)
    table = s.packed(rows, cols, bits)
    blocks = square_blocks(s, indptr, indices, rows)
    whole = s.small(rows)
    weights = {heads: s.codes(indices.numel(), heads, 8) for heads in heads_for(size)}
    col, row = s.positive(cols), s.positive(rows, 1)
    factor = s.copy(torch.tensor([1.3]))
    nothing = (None, None, None, None)
    bare = nothing, (col, *nothing)
    plain = nothing, (col, col, row, row, col)
    with_own = (whole, whole, table, factor), (col, col, None, row, None)

    def headed(heads: int) -> tuple[Any, ...]:
        of_row = s.positive(rows, heads)
        return nothing, (col, col, of_row, of_row, col)

    forms = (
        ((None, None), bare),
        ((None, None), with_own),
        ((None, blocks), plain),
        ((None, blocks), with_own),
        *(((weight, None), headed(heads)) for heads, weight in weights.items()),
    )
    for i, (edges, rest) in enumerate(forms):
        end = finish(s, rows, cols, outputs(bits, i + cols), bits % 2 == 0)
        for coding in codings_of(bits):
            sums = (indptr, indices, *edges), (table, bits, cols, coding)
            yield "fused_spmm", (*sums, *rest, *end, threads)


def outer_sum_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Sums of outer products, of tables down to one row, and what follows."""
    _, cols, threads = size
    degrees = degrees_for(size)
    rows = len(degrees)
    for i, (sources, heads, placed) in enumerate(
        ((1, 1, False), (rows, 5, True), (rows, 2, False))
    ):
        indptr, indices = s.graph(degrees, sources)
        count, plain = indices.numel(), i > 0
        order = s.copy(torch.arange(count).flip(0)) if placed else None
        factors = s.packed(count, heads, 9 - bits), 9 - bits, heads, 0
        zeros = [s.copy(torch.ones(n, dtype=torch.int32)) for n in (cols, heads)]
        width = (heads + plain) * cols
        col = s.positive(width)
        epilogue = (col, col, None, s.positive(rows, 1), col) if i else (col, *[None] * 4)
        end = finish(s, rows, width, outputs(bits, i + cols), bits % 2 == 0)
        for coding in codings_of(bits):
            source = s.packed(sources, cols, bits), bits, cols, coding
            given = (indptr, indices, None, None), source, factors, order, *zeros, plain
            yield "fused_outer_sum", (*given, epilogue, *end, threads)


def fused_product_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """One product, or the sum of two of different widths and depths, and what follows."""
    rows, depth, threads = size
    for i, (m, count) in enumerate(((1, 2), (7, 1), (33, 2), (65, 1 + bits % 2))):
        widths, depths = [bits, 9 - bits][:count], [depth, 2 * depth + 1][:count]
        w_bits = [9 - bits, 3][:count]
        x = [s.packed(rows, k, b) for k, b in zip(depths, widths, strict=True)]
        w = [s.packed(m, k, b) for k, b in zip(depths, w_bits, strict=True)]
        midrise = [False, True][:count]
        scale = [s.positive(m) for _ in x]
        column = [s.positive(m), None][:count]
        row = [None, s.positive(rows, 1)][:count]
        factors = zip(x, widths, depths, w, w_bits, midrise, strict=True)
        epilogues = zip(scale, column, row, strict=True)
        products = [
            ((one, b, k, 0), (two, wb, mid), (by, col, None, of_row, col))
            for (one, b, k, two, wb, mid), (by, col, of_row) in zip(factors, epilogues, strict=True)
        ]
        end = finish(s, rows, m, outputs(bits, i + depth), bits % 2 == 0)
        yield "fused_gemm", (products, *end, threads)


def feature_product_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """A product of raw features, packed on the way, and what follows."""
    rows, depth, threads = size
    x, scale = s.normal(rows, depth), s.floats(rows)
    for i, (w_bits, m) in enumerate(((bits, 1), (9 - bits, 17), (4, 65))):
        w, col = s.packed(m, depth, w_bits), s.positive(m)
        about = (x, bits, i == 0, bits < 3, 1e-9, scale, (w, w_bits, w_bits < 8 and m == 17))
        epilogue = (col, col if i else None, None, None, col)
        end = finish(s, rows, m, outputs(bits, i + depth), bits % 2 == 0)
        yield "fused_gemm_features", (*about, epilogue, *end, threads)


def propagate_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Plain and corrected steps, on vectors of byte codes and on packed rows, and on blocks."""
    _, cols, threads = size
    degrees = degrees_for(size)
    rows = len(degrees)
    indptr, indices = s.graph(degrees, rows)
    blocks = square_blocks(s, indptr, indices, rows)
    x = s.normal(rows, cols)
    factors = (None, s.positive(rows))
    for i, (steps, regrouped) in enumerate(
        product(([0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.2]), (None, blocks))
    ):
        factor = factors[(i + bits) % 2]
        sums = len(steps) + sum(c != 0 for c in steps)
        widths = [bits, 9 - bits, bits, 4, 8][:sums]
        made = tuple(s.positive(sums, cols) for _ in range(3))
        edges, rounds = (indptr, indices, None, regrouped), (*made, widths)
        what = (steps, factor is not None, 0.1)
        yield "propagate", (edges, x, factor, rounds, what, s.floats(rows, cols), threads)
