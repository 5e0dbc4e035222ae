"""Edges at which the codes of two rows meet: scores of attention, and sums of pairs.

All that is summed are integers. Rows come as (packed, bytes of a row), those of edges with the
order that edges take them in, or None, as a third.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read

# What becomes of the message of an edge.
RECTIFIED = tl.constexpr(0)
LARGEST = tl.constexpr(1)
SMALLEST = tl.constexpr(2)
WEIGHTED = tl.constexpr(3)
GATED = tl.constexpr(4)


@triton.jit
def joined_to(
    codes, joined, place, there, first, num_cols, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Codes ``[EDGES, BLOCK]`` of sources, with those of edges added where there are some."""
    packed, row_bytes, order = joined
    if packed is not None:
        taken = place.to(tl.int64)
        if order is not None:
            taken = tl.load(order + place, mask=there, other=0)
        codes += read(packed, taken * row_bytes, there, first, num_cols, BITS, BLOCK)
    return codes


@triton.jit
def scores(
    indices, targets, rows, other, joined, weights, factors, num_edges, heads, width, num_cols, out,
    BITS: tl.constexpr, OTHER_BITS: tl.constexpr, JOINED_BITS: tl.constexpr, BLOCK: tl.constexpr,
    EDGES: tl.constexpr,
):  # fmt: skip
    """One head of some edges: ``weights`` are (vector, floor), ``factors`` (factor, source's)."""
    vector, floor = weights
    place = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    head = tl.program_id(1)
    there = place < num_edges
    source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
    target = tl.load(targets + place, mask=there, other=0)
    begin = head * width
    product = tl.zeros([EDGES], tl.int32)
    linear = tl.zeros([EDGES], tl.int32)
    for first in range(begin // 8 * 8, begin + width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        mine = (column >= begin) & (column < begin + width)
        u = read(rows[0], source * rows[1], there, first, num_cols, BITS, BLOCK)
        u = joined_to(u, joined, place, there, first, num_cols, JOINED_BITS, BLOCK)
        t = read(other[0], target * other[1], there, first, num_cols, OTHER_BITS, BLOCK)
        if vector is not None:
            by_column = tl.load(vector + column, mask=mine, other=0)[None, :]
            both = u + t - tl.load(floor + column, mask=mine, other=0)[None, :]
            product += tl.sum(tl.where(both > 0, both, 0) * by_column, axis=1)
            linear += tl.sum(u * by_column, axis=1)
        else:
            u = tl.where(mine[None, :], u, 0)
            product += tl.sum(u * t, axis=1)
            linear += tl.sum(u, axis=1)
    score = product.to(tl.float32) * tl.load(factors[0] + head)
    score = score + linear.to(tl.float32) * tl.load(factors[1] + head)
    tl.store(out + place * heads + head, score, mask=there)


@triton.jit
def gates(
    u, target, source, place, there, first, num_cols, weighed, table, gate_zero,
    OTHER_BITS: tl.constexpr, VALUE_BITS: tl.constexpr, SECOND_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gated values and gates, int32 ``[EDGES, BLOCK]``; ``weighed`` are (other, value, joined)."""
    other, value, second = weighed
    column = first + tl.arange(0, BLOCK)
    inside = there[:, None] & (column < num_cols)[None, :]
    one = tl.zeros([1], tl.int64) + target
    t = read(other[0], one * other[1], one >= 0, first, num_cols, OTHER_BITS, BLOCK)
    gate = tl.load(table + (u + t), mask=inside, other=0).to(tl.int32) - gate_zero
    v = read(value[0], source * value[1], there, first, num_cols, VALUE_BITS, BLOCK)
    v = joined_to(v, second, place, there, first, num_cols, SECOND_BITS, BLOCK)
    return gate * v, gate


@triton.jit
def pass_over(
    indices, rows, joined, weighed, tables, begin, end, target, first, num_cols, none,
    MODE: tl.constexpr, BITS: tl.constexpr, JOINED_BITS: tl.constexpr, OTHER_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr, SECOND_BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """What edges of a target come to, int32 ``[BLOCK]``, and the sum of their weights.

    ``tables`` are (floor, extremes of the targets, table, what a gate is less).
    """
    floor, far, table, gate_zero = tables
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    acc = tl.zeros([BLOCK], tl.int32) + none
    weights = tl.zeros([BLOCK], tl.int32)
    if MODE != GATED:
        least = tl.load(floor + column, mask=mask, other=0)[None, :]
    if MODE == WEIGHTED:
        extreme = tl.load(far + target * num_cols + column, mask=mask, other=0)[None, :]
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        inside = there[:, None] & mask[None, :]
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        u = read(rows[0], source * rows[1], there, first, num_cols, BITS, BLOCK)
        u = joined_to(u, joined, place, there, first, num_cols, JOINED_BITS, BLOCK)
        if MODE == GATED:
            value, weight = gates(
                u, target, source, place, there, first, num_cols, weighed, table, gate_zero,
                OTHER_BITS, VALUE_BITS, SECOND_BITS, BLOCK,
            )  # fmt: skip
            acc += tl.sum(tl.where(inside, value, 0), axis=0)
            weights += tl.sum(tl.where(inside, weight, 0), axis=0)
        else:
            message = tl.where(u > least, u - least, 0)
            if MODE == RECTIFIED:
                acc += tl.sum(tl.where(inside, message, 0), axis=0)
            elif MODE == LARGEST:
                acc = tl.maximum(acc, tl.max(tl.where(inside, message, none), axis=0))
            elif MODE == SMALLEST:
                acc = tl.minimum(acc, tl.min(tl.where(inside, message, none), axis=0))
            else:
                weight = tl.load(table + tl.abs(message - extreme), mask=inside, other=0)
                weight = weight.to(tl.int32)
                acc += tl.sum(weight * message, axis=0)
                weights += tl.sum(weight, axis=0)
    return acc, weights


@triton.jit
def pair_rows(
    indptr, most_edges, indices, rows, joined, weighed, tables, num_cols, none, outs,
    MODE: tl.constexpr, BITS: tl.constexpr, JOINED_BITS: tl.constexpr, OTHER_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr, SECOND_BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Every target of at most ``most_edges`` edges; ``outs`` are (sums, weights)."""
    target = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    if end - begin <= most_edges:
        acc, weights = pass_over(
            indices, rows, joined, weighed, tables, begin, end, target, first, num_cols, none, MODE,
            BITS, JOINED_BITS, OTHER_BITS, VALUE_BITS, SECOND_BITS, BLOCK, EDGES,
        )  # fmt: skip
        column = first + tl.arange(0, BLOCK)
        at = target * num_cols + column
        tl.store(outs[0] + at, acc, mask=column < num_cols)
        if MODE == WEIGHTED or MODE == GATED:
            tl.store(outs[1] + at, weights, mask=column < num_cols)


@triton.jit
def pair_parts(
    begins, ends, targets, indices, rows, joined, weighed, tables, num_cols, none, outs,
    MODE: tl.constexpr, BITS: tl.constexpr, JOINED_BITS: tl.constexpr, OTHER_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr, SECOND_BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Parts of long rows, which meet in the rows of their targets; these start as ``none``."""
    part = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    begin, end = tl.load(begins + part), tl.load(ends + part)
    target = tl.load(targets + part).to(tl.int64)
    acc, weights = pass_over(
        indices, rows, joined, weighed, tables, begin, end, target, first, num_cols, none, MODE,
        BITS, JOINED_BITS, OTHER_BITS, VALUE_BITS, SECOND_BITS, BLOCK, EDGES,
    )  # fmt: skip
    column = first + tl.arange(0, BLOCK)
    at, mask = target * num_cols + column, column < num_cols
    if MODE == LARGEST:
        tl.atomic_max(outs[0] + at, acc, mask=mask, sem="relaxed")
    elif MODE == SMALLEST:
        tl.atomic_min(outs[0] + at, acc, mask=mask, sem="relaxed")
    else:
        tl.atomic_add(outs[0] + at, acc, mask=mask, sem="relaxed")
    if MODE == WEIGHTED or MODE == GATED:
        tl.atomic_add(outs[1] + at, weights, mask=mask, sem="relaxed")
