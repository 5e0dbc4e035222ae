"""Functions of codes at an edge, summed as integers. Rows come as (packed, bytes of a row)."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read


@triton.jit
def modulate(
    indptr, indices, rows, film, affine, row_scale, num_cols, out,
    BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """The codes that a target's slope and offset lift above zero, and how many they are."""
    target = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCK
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    beta = tl.load(film + target * 2 * num_cols + column, mask=mask, other=0.0)
    gamma = tl.load(film + (target * 2 + 1) * num_cols + column, mask=mask, other=0.0)
    slope = gamma * tl.load(affine[0] + column, mask=mask, other=0.0)
    offset = beta - slope * tl.load(affine[1] + column, mask=mask, other=0.0)
    total = tl.zeros([BLOCK], tl.int32)
    number = tl.zeros([BLOCK], tl.int32)
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        u = read(rows[0], source * rows[1], there, first, num_cols, BITS, BLOCK)
        above = (slope[None, :] * u.to(tl.float32) + offset[None, :] > 0.0) & there[:, None]
        total += tl.sum(tl.where(above, u, 0), axis=0)
        number += tl.sum(above.to(tl.int32), axis=0)
    y = slope * total.to(tl.float32) + offset * number.to(tl.float32)
    if row_scale is not None:
        y = y * tl.load(row_scale + target)
    tl.store(out + target * num_cols + column, y, mask=mask)


@triton.jit
def leveled(
    ends, place, source, target, order, there, inside, first, num_cols, table,
    BITS: tl.constexpr, OTHER_BITS: tl.constexpr, EDGE_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Entries of a table int32 ``[EDGES, BLOCK]``: ``ends`` are rows of sources, targets, edges."""
    mine, theirs, of_edges = ends
    code = read(mine[0], source * mine[1], there, first, num_cols, BITS, BLOCK)
    one = tl.zeros([1], tl.int64) + target
    code += read(theirs[0], one * theirs[1], one >= 0, first, num_cols, OTHER_BITS, BLOCK)
    if of_edges[0] is not None:
        taken = place.to(tl.int64)
        if order is not None:
            taken = tl.load(order + place, mask=there, other=0)
        code += read(of_edges[0], taken * of_edges[1], there, first, num_cols, EDGE_BITS, BLOCK)
    return tl.load(table + code, mask=inside, other=0).to(tl.int32)


@triton.jit
def multiply_levels(
    indptr, indices, gated, valued, order, tables, scale, num_cols, out, WIDTHS: tl.constexpr,
    LARGEST: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Sums or maxima of products of two tables' entries; ``WIDTHS`` are those of six rows."""
    target = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCK
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    acc = tl.zeros([BLOCK], tl.int32)
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        inside = there[:, None] & mask[None, :]
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        gate = leveled(
            gated, place, source, target, order, there, inside, first, num_cols, tables[0],
            WIDTHS[0], WIDTHS[1], WIDTHS[4], BLOCK,
        )  # fmt: skip
        value = leveled(
            valued, place, source, target, order, there, inside, first, num_cols, tables[1],
            WIDTHS[2], WIDTHS[3], WIDTHS[5], BLOCK,
        )  # fmt: skip
        product = tl.where(inside, gate * value, 0)
        if LARGEST:
            acc = tl.maximum(acc, tl.max(product, axis=0))
        else:
            acc += tl.sum(product, axis=0)
    y = acc.to(tl.float32) * tl.load(scale)
    tl.store(out + target * num_cols + column, y, mask=mask)
