"""Sums of the outer products of rows of edges with those of their sources."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read_at


@triton.jit
def add_products(
    packed, row_bytes, indices, outer, begin, end, first, num_cols,
    BITS: tl.constexpr, OTHER_BITS: tl.constexpr, BLOCK: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Sums int32 ``[BLOCK]`` of products of centred codes: column ``k * C + c``, of factor k.

    ``outer`` are (factors, bytes of a row, order, zeros of the columns, of the factors, C,
    K). Where there are more columns than ``K * C``, the last factor is 1.
    """
    factors, factor_bytes, order, zero, factor_zero, width, heads = outer
    column = first + tl.arange(0, BLOCK)
    mask = column < num_cols
    head = column // width
    mine = column - head * width
    weighed = mask & (head < heads)
    less = tl.load(zero + mine, mask=mask, other=0)[None, :]
    factor_less = tl.load(factor_zero + head, mask=weighed, other=0)[None, :]
    acc = tl.zeros([BLOCK], tl.int32)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        there = place < end
        source = tl.load(indices + place, mask=there, other=0).to(tl.int64)
        taken = place.to(tl.int64)
        if order is not None:
            taken = tl.load(order + place, mask=there, other=0)
        u = read_at(packed, source * row_bytes, there, mine, mask, BITS) - less
        f = read_at(factors, taken * factor_bytes, there, head, weighed, OTHER_BITS) - factor_less
        product = tl.where(weighed[None, :], f, 1) * u
        acc += tl.sum(tl.where(there[:, None], product, 0), axis=0)
    return acc
