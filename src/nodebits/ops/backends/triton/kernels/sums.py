"""Neighbour sums over packed rows: a target and a tile of columns per program.

Sums are integers, so neither the order of edges nor that of programs can be seen in a result. A
target of many edges is left to programs of its own, a part of its edges each.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read
from nodebits.ops.backends.triton.kernels.finish import finish
from nodebits.ops.backends.triton.kernels.outer import add_products


@triton.jit
def add_units(
    packed, row_units, indices, begin, end, first,
    BITS: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Sums of unit weights, int32 ``[BLOCK]``, of fields that divide a byte.

    Rows are read in units of 1 or 4 bytes. In a unit of 4, the fields at one place in each byte (of
    8 bits: each second byte) are added together in its lanes, of as many edges as those hold.
    """
    STEP: tl.constexpr = BITS
    PLANES: tl.constexpr = 8 // BITS if BITS < 8 or UNIT == 1 else 2
    LANES: tl.constexpr = 1 if UNIT == 1 else (4 if BITS < 8 else 2)
    LANE_BITS: tl.constexpr = 32 // LANES
    FIELD: tl.constexpr = (1 << BITS) - 1
    SPREAD: tl.constexpr = 1 if LANES == 1 else (0x01010101 if LANES == 4 else 0x00010001)
    LANE: tl.constexpr = 255 if LANES == 4 else 65535
    UNITS: tl.constexpr = BLOCK * BITS // (8 * UNIT)
    unit = first * BITS // (8 * UNIT) + tl.arange(0, UNITS)
    shift = (tl.arange(0, PLANES) * STEP)[None, None, :]
    lane = (tl.arange(0, LANES) * LANE_BITS)[None, :, None]
    acc = tl.zeros([UNITS, LANES, PLANES], tl.int32)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        at = source[:, None] * row_units + unit[None, :]
        inside = there[:, None] & (unit < row_units)[None, :]
        word = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
        planes = tl.sum((word[:, :, None] >> shift) & (FIELD * SPREAD), axis=0)
        if LANES == 1:
            acc += planes[:, None, :]
        else:
            acc += (planes[:, None, :] >> lane) & LANE
    return tl.reshape(acc, [BLOCK])


@triton.jit
def add_fields(
    packed, row_bytes, indices, weight, heads, begin, end, first, num_cols,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Sums of any width, with the codes of the edges where they have some; int32 ``[BLOCK]``."""
    acc = tl.zeros([BLOCK], tl.int32)
    column = first + tl.arange(0, BLOCK)
    head = tl.minimum(column // (num_cols // heads), heads - 1)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        codes = read(packed, source * row_bytes, there, first, num_cols, BITS, BLOCK)
        if weight is not None:
            at = place.to(tl.int64)[:, None] * heads + head[None, :]
            codes = codes * tl.load(weight + at, mask=there[:, None], other=0).to(tl.int32)
        acc += tl.sum(codes, axis=0)
    return acc


@triton.jit
def add(
    rows, edges, begin, end, first, num_cols,
    BITS: tl.constexpr, OTHER_BITS: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
    EDGES: tl.constexpr,
):  # fmt: skip
    """The sum of some edges.

    ``rows`` is (packed, row size in units), ``edges`` (indices, weight, heads, outer), where
    ``outer`` is None or the factors of :func:`add_products`, of ``OTHER_BITS``.
    """
    packed, row_units = rows
    indices, weight, heads, outer = edges
    if outer is not None:
        acc = add_products(
            packed, row_units, indices, outer, begin, end, first, num_cols, BITS, OTHER_BITS, BLOCK,
            EDGES,
        )  # fmt: skip
    elif UNIT == 0:
        acc = add_fields(
            packed, row_units, indices, weight, heads, begin, end, first, num_cols, BITS, BLOCK,
            EDGES,
        )  # fmt: skip
    else:
        acc = add_units(packed, row_units, indices, begin, end, first, BITS, UNIT, BLOCK, EDGES)
    return acc


@triton.jit
def sum_rows(
    rows, indptr, edges, num_cols, most_edges, out, transform, epilogue, own, after, floats,
    outputs, BITS: tl.constexpr, OTHER_BITS: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
    EDGES: tl.constexpr, OWN_BITS: tl.constexpr,
):  # fmt: skip
    """Every target of at most ``most_edges`` edges: int32 to ``out``, or on to what is fused."""
    target = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    if end - begin <= most_edges:
        acc = add(rows, edges, begin, end, first, num_cols, BITS, OTHER_BITS, UNIT, BLOCK, EDGES)
        if out is not None:
            column = first + tl.arange(0, BLOCK)
            tl.store(out + target.to(tl.int64) * num_cols + column, acc, mask=column < num_cols)
        else:
            one = tl.zeros([1], tl.int32) + target
            finish(
                acc[None, :], one, one >= 0, first, num_cols, transform, epilogue, own, None,
                after, floats, outputs, OWN_BITS, BLOCK,
            )  # fmt: skip


@triton.jit
def sum_parts(
    rows, begins, ends, lines, edges, num_cols, out,
    BITS: tl.constexpr, OTHER_BITS: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
    EDGES: tl.constexpr,
):  # fmt: skip
    """Parts of long rows, added to their lines of ``out``, which starts as zeros."""
    part = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(begins + part), tl.load(ends + part)
    acc = add(rows, edges, begin, end, first, num_cols, BITS, OTHER_BITS, UNIT, BLOCK, EDGES)
    column = first + tl.arange(0, BLOCK)
    place = tl.load(lines + part).to(tl.int64) * num_cols + column
    tl.atomic_add(out + place, acc, mask=column < num_cols, sem="relaxed")
