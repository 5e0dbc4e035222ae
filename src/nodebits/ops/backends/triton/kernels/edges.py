"""Values per edge."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exp_nonpositive(t):
    """The float32 of :func:`nodebits.ops.definitions.edges.exp_nonpositive`."""
    t = tl.where(t > -87.0, t, -87.0)
    k = (t * 1.44269504088896341 + 12582912.0) - 12582912.0  # rounded: half to even
    r = (t - k * 0.693359375) - k * -2.12194440e-4
    p = r * 1.3888889e-3 + 8.3333333e-3
    p = p * r + 4.1666668e-2
    p = p * r + 1.6666667e-1
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * ((k.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def scores(indices, score_src, of_target, place, end, head, heads, slope):
    """Leaky sums of both ends ``[EDGES, HEADS]``; -inf for NaN and outside."""
    inside = (place < end)[:, None] & (head < heads)[None, :]
    source = tl.load(indices + place, mask=place < end, other=0).to(tl.int64)
    at = source[:, None] * heads + head[None, :]
    e = tl.load(score_src + at, mask=inside, other=0.0) + of_target[None, :]
    e = tl.where(e > 0.0, e, e * slope)
    return tl.where((e == e) & inside, e, float("-inf"))


@triton.jit
def softmax(
    indptr, indices, score_src, score_dst, codes, row_sum, heads, slope, most,
    EDGES: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Integer numerators of a target's edges, and their sums."""
    target = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    here = head < heads
    begin, end = tl.load(indptr + target), tl.load(indptr + target + 1)
    of_target = tl.load(score_dst + target * heads + head, mask=here, other=0.0)
    top = tl.full([HEADS], float("-inf"), tl.float32)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        e = scores(indices, score_src, of_target, place, end, head, heads, slope)
        top = tl.maximum(top, tl.max(e, axis=0))
    total = tl.zeros([HEADS], tl.int32)
    for edge in range(begin, end, EDGES):
        place = edge + tl.arange(0, EDGES)
        inside = (place < end)[:, None] & here[None, :]
        e = scores(indices, score_src, of_target, place, end, head, heads, slope)
        v = exp_nonpositive(e - top[None, :]) * most
        v = tl.where(v < most, v, most)
        made = ((v + 8388608.0) - 8388608.0).to(tl.int32)
        at = place.to(tl.int64)[:, None] * heads + head[None, :]
        tl.store(codes + at, made.to(tl.uint8), mask=inside)
        total += tl.sum(tl.where(inside, made, 0), axis=0)
    tl.store(row_sum + target * heads + head, total, mask=here)
