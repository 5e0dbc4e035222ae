"""Extremes and statistics of neighbours: a target and a tile of columns per program.

All that is gathered from edges are integers: sums, sums of squares and extremes of codes. A target
of many edges is left to programs of its own, a part of its edges each, which meet in atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read
from nodebits.ops.backends.triton.kernels.finish import finish

# Numbers of nodebits.ops.definitions.reduce.Statistic.
SUM = tl.constexpr(0)
MEAN = tl.constexpr(1)
MAX = tl.constexpr(2)
MIN = tl.constexpr(3)
VAR = tl.constexpr(4)
STD = tl.constexpr(5)
NO_CODE = tl.constexpr(255)


@triton.jit
def codes_of(
    rows, indices, edge, end, first, num_cols,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Codes int32 ``[EDGES, BLOCK]`` of some edges, and which of them there are."""
    packed, row_bytes = rows
    place = edge + tl.arange(0, EDGES)
    there = place < end
    source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
    return read(packed, source * row_bytes, there, first, num_cols, BITS, BLOCK), there


@triton.jit
def extreme(
    rows, indices, begin, end, first, num_cols, SMALLEST: tl.constexpr,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Of some edges, int32 ``[BLOCK]``; 255 or 0 where there is none."""
    least: tl.constexpr = NO_CODE if SMALLEST else 0
    acc = tl.zeros([BLOCK], tl.int32) + least
    for edge in range(begin, end, EDGES):
        codes, there = codes_of(rows, indices, edge, end, first, num_cols, BITS, BLOCK, EDGES)
        codes = tl.where(there[:, None], codes, least)
        if SMALLEST:
            acc = tl.minimum(acc, tl.min(codes, axis=0))
        else:
            acc = tl.maximum(acc, tl.max(codes, axis=0))
    return acc


@triton.jit
def extreme_rows(
    rows, indptr, indices, num_cols, most_edges, epilogue, after, floats, outputs,
    SMALLEST: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Every target of at most ``most_edges`` edges, on to what is fused."""
    target = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    if end - begin <= most_edges:
        acc = extreme(
            rows, indices, begin, end, first, num_cols, SMALLEST, BITS, BLOCK, EDGES
        )  # fmt: skip
        acc = tl.where(end > begin, acc, 0)
        one = tl.zeros([1], tl.int32) + target
        finish(
            acc[None, :], one, one >= 0, first, num_cols, (None, None), epilogue,
            (None, None, 0), None, after, floats, outputs, BITS, BLOCK,
        )  # fmt: skip


@triton.jit
def extreme_parts(
    rows, begins, ends, lines, indices, num_cols, out, SMALLEST: tl.constexpr,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Parts of long rows, met with their lines of ``out``, which starts as no code at all."""
    part = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(begins + part), tl.load(ends + part)
    acc = extreme(rows, indices, begin, end, first, num_cols, SMALLEST, BITS, BLOCK, EDGES)
    column = first + tl.arange(0, BLOCK)
    place = tl.load(lines + part).to(tl.int64) * num_cols + column
    if SMALLEST:
        tl.atomic_min(out + place, acc, mask=column < num_cols, sem="relaxed")
    else:
        tl.atomic_max(out + place, acc, mask=column < num_cols, sem="relaxed")


@triton.jit
def moments(
    rows, indices, begin, end, first, num_cols,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Sum, sum of squares, largest and smallest code of some edges, int32 ``[BLOCK]`` each."""
    total = tl.zeros([BLOCK], tl.int32)
    squares = tl.zeros([BLOCK], tl.int32)
    largest = tl.zeros([BLOCK], tl.int32)
    smallest = tl.zeros([BLOCK], tl.int32) + NO_CODE
    for edge in range(begin, end, EDGES):
        codes, there = codes_of(rows, indices, edge, end, first, num_cols, BITS, BLOCK, EDGES)
        codes = tl.where(there[:, None], codes, 0)
        total += tl.sum(codes, axis=0)
        squares += tl.sum(codes * codes, axis=0)
        largest = tl.maximum(largest, tl.max(codes, axis=0))
        none = tl.where(there[:, None], codes, NO_CODE)
        smallest = tl.minimum(smallest, tl.min(none, axis=0))
    return total, squares, largest, smallest


@triton.jit
def statistic(gathered, degree, scale, zero, shift, limits, KIND: tl.constexpr):
    """One of them, float32 ``[BLOCK]``, each operation rounded as in the definition."""
    total, squares, largest, smallest = gathered
    least, least_root = limits
    count = degree.to(tl.float32)
    some = tl.where(degree > 0, 1.0, 0.0)
    inverse = tl.where(degree > 0, tl.div_rn(tl.full([], 1.0, tl.float32), count), 0.0)
    if KIND == SUM or KIND == MEAN:
        y = (total.to(tl.float32) - count * zero) * scale
        if KIND == MEAN:
            y = y * inverse
        if shift is not None:
            y = y + shift * (count if KIND == SUM else some)
    elif KIND == MAX or KIND == MIN:
        code = largest if KIND == MAX else tl.where(degree > 0, smallest, 0)
        y = (code.to(tl.float32) - some * zero) * scale
        if shift is not None:
            y = y + shift * some
    else:
        wide = total.to(tl.int64)
        spread = degree * squares.to(tl.int64) - wide * wide
        y = spread.to(tl.float32) * inverse * inverse * scale * scale
        if KIND == STD:
            root = tl.sqrt_rn(tl.where(y < least, least, y))
            y = tl.where(root <= least_root, 0.0, root)
    return y


@triton.jit
def statistics(
    gathered, degree, target, first, num_cols, affine, moved, limits, out,
    KINDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes what is asked for of one target, from its moments.

    ``limits`` are the least variance and its root, as float32.
    """
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    scale = tl.load(affine[0] + column, mask=mask, other=0.0)
    zero = tl.load(affine[1] + column, mask=mask, other=0.0)
    shift = None
    if moved is not None:
        shift = tl.load(moved + target * num_cols + column, mask=mask, other=0.0)
    for i in tl.static_range(len(KINDS)):
        y = statistic(gathered, degree, scale, zero, shift, limits, KINDS[i])
        tl.store(out + (target * len(KINDS) + i) * num_cols + column, y, mask=mask)


@triton.jit
def statistics_rows(
    rows, indptr, indices, num_cols, most_edges, affine, moved, limits, out,
    KINDS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Every target of at most ``most_edges`` edges."""
    target = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    if end - begin <= most_edges:
        gathered = moments(rows, indices, begin, end, first, num_cols, BITS, BLOCK, EDGES)
        statistics(
            gathered, end - begin, target.to(tl.int64), first, num_cols, affine, moved, limits, out,
            KINDS, BLOCK,
        )  # fmt: skip


@triton.jit
def statistics_parts(
    rows, begins, ends, lines, indices, num_cols, totals,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Parts of long rows; ``totals`` are four matrices, one for each of the moments."""
    part = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(begins + part), tl.load(ends + part)
    total, squares, largest, smallest = moments(
        rows, indices, begin, end, first, num_cols, BITS, BLOCK, EDGES
    )
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    place = tl.load(lines + part).to(tl.int64) * num_cols + column
    tl.atomic_add(totals[0] + place, total, mask=mask, sem="relaxed")
    tl.atomic_add(totals[1] + place, squares, mask=mask, sem="relaxed")
    tl.atomic_max(totals[2] + place, largest, mask=mask, sem="relaxed")
    tl.atomic_min(totals[3] + place, smallest, mask=mask, sem="relaxed")


@triton.jit
def finish_statistics(
    totals, targets, indptr, num_cols, affine, moved, limits, out,
    KINDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What is asked for of long rows, from their moments in memory."""
    line = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    place = line.to(tl.int64) * num_cols + column
    target = tl.load(targets + line).to(tl.int64)
    degree = tl.load(indptr + target + 1) - tl.load(indptr + target)
    total = tl.load(totals[0] + place, mask=mask, other=0)
    squares = tl.load(totals[1] + place, mask=mask, other=0)
    largest = tl.load(totals[2] + place, mask=mask, other=0)
    smallest = tl.load(totals[3] + place, mask=mask, other=0)
    gathered = (total, squares, largest, smallest)
    statistics(gathered, degree, target, first, num_cols, affine, moved, limits, out, KINDS, BLOCK)
