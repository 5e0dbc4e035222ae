"""Calls of the kernels that do one thing, with all arrays in guarded buffers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from guarded import Case, Size, Source, codings_of

from nodebits.core.packing import row_bytes
from nodebits.core.row_layout import RowLayout
from nodebits.ops.backends.cpu import kernels as backend

BITS = range(1, 9)
AXES = (-1, 0, 1)
# Edges of every row: a hub, in MANY_EDGES one that threads share, and empty rows at both ends.
# Rows and edges are so many that regrouped edges, which start at a multiple of 8, end at one too.
FEW_EDGES = (0, 0, 1, 2, 3, 50, 0, 300, 4, 0)
MANY_EDGES = (0, 3, 17_000, *(7, 0, 50) * 350, 47, 0, 0)


def degrees_for(size: Size) -> tuple[int, ...]:
    """Many edges where the work is to be worth a second thread."""
    return FEW_EDGES if size.rows < 500 else MANY_EDGES


def heads_for(size: Size) -> list[int]:
    """Columns of edge weights: one, some and, where the edges are few, as many as the sum has."""
    some = next((h for h in (3, 4) if size.cols > h and size.cols % h == 0), 1)
    return sorted({1, some, size.cols if size.rows < 500 else 1})


def row_cases(s: Source, size: Size) -> Iterator[Case]:
    """Kernels on float rows."""
    rows, cols, threads = size
    col, row = s.positive(cols), s.positive(rows, 1)
    acc = s.small(rows * cols).view(rows, cols)
    y = s.floats(rows, cols)
    yield "rescale", (acc, (col, col, row, row, col), y, threads)
    yield "rescale", (acc, (col, None, None, None, None), y, threads)
    sums, three = s.normal(rows, cols), (s.floats(cols), s.floats(cols), s.floats(cols))
    yield "rescale_floats", (sums, (col, col, row, row, col), y, threads)
    yield "rescale_backward", (sums, sums, (col, col, row, row, None), y, *three, threads)
    head = s.positive(rows, cols)
    yield "rescale", (acc, (col, col, head, head, None), y, threads)
    for axis, bits in product(AXES, BITS):
        x = s.normal(rows, cols)
        n = {-1: 1, 0: rows, 1: cols}[axis]
        q = (s.positive(n), s.positive(n), axis, bits)
        yield "fake_quantize", (x, *q, y, threads)
        made = (y, s.floats(n), s.floats(n))
        yield "fake_quantize_backward", (x, x, *q, bits % 3, *made, threads)
        factor = s.positive(rows) if bits % 2 else None
        p = s.bytes(rows, row_bytes(cols, bits))
        yield "quantize_pack", (x, *q, factor, p, threads)
        index = torch.arange(rows, dtype=torch.int32).flip(0)
        source = (s.packed(rows, cols, bits), bits, cols, 0)
        yield "gather_rows", (source, s.copy(index), 0, rows, *q[:3], y, threads)


def packed_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Kernels on packed rows and their products."""
    rows, cols, threads = size
    u = s.codes(rows, cols, bits)
    p = s.packed(rows, cols, bits)
    yield "pack", (u, bits, s.bytes(*p.shape), threads)
    yield "unpack", (p, bits, cols, s.bytes(rows, cols), threads)
    for w_bits in BITS:
        m = (1, 17, 41, 64, 65, 7, 33)[(bits + w_bits + cols) % 7]
        w = s.packed(m, cols, w_bits)
        midrise = w_bits < 8 and m % 2 == 0
        for coding in codings_of(bits):
            source = (p, bits, cols, coding)
            yield "gemm", (source, (w, w_bits, midrise), s.ints(rows, m), threads)


def bucketed_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Kernels on rows of several widths; the widest, and with it the end, has ``bits``."""
    rows, cols, threads = size
    widths = torch.randint(1, bits + 1, (rows,), generator=s.generator)
    widths[rows // 2] = bits
    layout = RowLayout.of(widths)
    where = (s.copy(layout.order), list(layout.counts), cols)
    p = s.bytes(layout.bytes(cols))
    for axis in AXES:
        factor = s.positive(rows) if (axis + bits) % 2 else None
        scale = s.positive({-1: 1, 0: rows, 1: cols}[axis])
        zero, x = s.positive(8), s.normal(rows, cols)
        places = (s.copy(layout.widths), s.copy(layout.position))
        name = "quantize_pack_checked" if axis == 0 else "quantize_pack_bucketed"
        yield name, (x, scale, zero, axis, *places, factor, p, threads)
    # The generator goes on after the call: p is filled.
    for shift in (None, s.codes(1, rows, 3).view(-1)):
        yield "unpack_bucketed", ((p, *where), shift, s.bytes(rows, cols), threads)


def sum_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Sums over neighbours, of tables down to one row."""
    _, cols, threads = size
    degrees = degrees_for(size)
    few = (1 if bits % 2 else 9,) if degrees is FEW_EDGES else ()
    for sources in (*few, len(degrees)):
        indptr, indices = s.graph(degrees, sources)
        p = s.packed(sources, cols, bits)
        out = s.ints(len(degrees), cols)
        edges, source = (indptr, indices), (p, bits, cols, 0)
        for coding in codings_of(bits):
            yield "spmm", ((*edges, None, None), (p, bits, cols, coding), out, threads)
        for heads in heads_for(size):
            weight = s.codes(indices.numel(), heads, 8)
            yield "spmm", ((*edges, weight, None), source, out, threads)
        for plan in ((4, 5), (len(degrees), 1 << 16)):
            if len(degrees) // plan[0] > 99:
                plan = (256, 600)
            need = (len(degrees), sources, indices.numel(), *plan)
            blocks = s.bytes(backend.compiled().edge_blocks_size(*need))
            yield "fill_edge_blocks", (indptr, indices, sources, *plan, blocks, threads)
            yield "spmm", ((*edges, None, blocks), source, out, threads)


def pair_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """Scores and sums of rows that meet at an edge, of tables down to one row."""
    _, cols, threads = size
    degrees = degrees_for(size)
    other_bits = 9 - bits
    for sources in (1, 9) if degrees is FEW_EDGES else (9,):
        indptr, indices = s.graph(degrees, sources)
        num_edges, edges = indices.numel(), (indptr, indices, None, None)
        col, floor = s.positive(cols), s.copy(torch.ones(cols, dtype=torch.int32))
        target = (s.packed(len(degrees), cols, other_bits), other_bits, cols, 0)
        of_edges = (s.packed(num_edges, cols, other_bits), other_bits, cols, 0)
        joined = [(*of_edges, None)]
        order = s.copy(torch.arange(num_edges).flip(0))
        placed = [(*of_edges, order)]
        gates = s.copy(torch.arange(768).byte())
        weights = s.copy(torch.arange(512).flip(0).byte())
        out = s.floats(len(degrees), cols)
        for coding in codings_of(bits):
            source = (s.packed(sources, cols, bits), bits, cols, coding)
            for heads in heads_for(size):
                factors = s.positive(heads), s.positive(heads)
                made = s.bytes(num_edges, heads), s.ints(len(degrees), heads)
                scores = s.normal(num_edges, heads)
                for vector, some in ((None, []), (floor, []), (floor, joined), (None, joined)):
                    scored = (edges, source, target, some, vector, vector, *factors)
                    yield "attention_codes", (*scored, bits, *made, threads)
                    yield "pair_scores", (*scored, scores, threads)
            for some in ([], joined, placed):
                sums = (edges, source, some, floor)
                yield "rectified_sum", (*sums, col, col, out, threads)
                yield "rectified_softmax", (*sums, weights, False, col, col, out, threads)
            for both in ([], joined + placed):
                gated = (edges, source, target, source, both, gates, 3, col, col)
                yield "gated_sum", (*gated, out, threads)
            film, factor = s.normal(len(degrees), 2 * cols), s.positive(len(degrees))
            for mean in (None, factor):
                yield "modulated_sum", (edges, source, film, col, col, mean, out, threads)
            levels, one = s.copy(torch.arange(768).byte()), s.positive(1)
            for places in (None, order):
                met = [source, target, source, target, *([of_edges] * 2 if num_edges else [])]
                given = (edges, met, places if num_edges else None, levels, levels, one)
                for largest in (False, True):
                    yield "gated_product", (*given, largest, out, threads)


def edge_cases(s: Source, threads: int) -> Iterator[Case]:
    """Kernels on edges."""
    for degrees, bits in product((FEW_EDGES, MANY_EDGES), BITS):
        indptr, indices = s.graph(degrees, 9)
        for heads in (1, 3, 8) if degrees is FEW_EDGES else (3,):
            scores = s.normal(9, heads), s.normal(len(degrees), heads)
            made = s.bytes(indices.numel(), heads), s.ints(len(degrees), heads)
            yield "edge_softmax", (indptr, indices, *scores, 0.2, bits, *made, threads)
    for edges in (0, 1, 77, 300_000):
        nodes = s.copy(torch.randint(0, 9, (edges,), generator=s.generator))
        made_csr = s.longs(10), s.ints(edges), s.longs(edges)
        yield "coo_to_csr", (nodes, nodes, 9, *made_csr, threads)
        yield "first_outside", (nodes, "nodes", 9, threads)
        yield "first_outside", (s.copy(nodes.int()), "nodes", 9, threads)
    for rows, heads in product((0, 1, 70), (1, 4)):
        three = [s.normal(rows, 8) for _ in range(3)]
        batch = s.copy(torch.arange(rows) // 33)
        for graphs in (batch, None):
            yield "graph_attention", (*three, graphs, heads, s.floats(rows, 8), threads)
    for rows, groups in product((1, 33, 9000), (1, 2, 77)):
        extent, limits = 2 * s.positive(rows), s.copy(s.positive(groups).sort().values)
        yield "nearest_group", (s.copy(extent), limits, s.ints(rows), threads)


def scan_cases(s: Source, size: Size, bits: int) -> Iterator[Case]:
    """The scan of raw features: dense codes, and sparse ones with room for all, some and none."""
    rows, cols, threads = size
    full = s.normal(rows, cols)
    few = s.copy(full.abs() * (torch.rand(rows, cols, generator=s.generator) < 0.2))
    per_row = (s.floats(rows), s.longs(rows), s.ints(rows), s.ints(rows))
    scale, trim = s.floats(rows), bits < 3
    for x, room in ((full, 0), (full, rows * cols // 2), (full, rows * cols), (few, rows * cols)):
        found = s.ints(room), s.bytes(room)
        yield "scan", (x, bits, 1e-30, *per_row, *found, None, scale, False, trim, threads)
    for symmetric in (False, True):
        packed = s.bytes(rows, row_bytes(cols, bits))
        found = s.ints(0), s.bytes(0)
        yield "scan", (full, bits, 1e-30, *per_row, *found, packed, scale, symmetric, trim, threads)
