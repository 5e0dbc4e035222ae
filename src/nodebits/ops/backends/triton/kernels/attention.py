"""Softmax attention between rows of floats, added in the order of columns and of keys."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.edges import exp_nonpositive


@triton.jit
def scores(query, key, rows, row_mask, keys, key_mask, num_cols, begin, width, factor):
    """Scaled products of a head's columns, ``[ROWS, KEYS]``."""
    made = tl.zeros([rows.shape[0], keys.shape[0]], tl.float32)
    for column in range(begin, begin + width):
        q = tl.load(query + rows * num_cols + column, mask=row_mask, other=0.0)
        k = tl.load(key + keys * num_cols + column, mask=key_mask, other=0.0)
        made += q[:, None] * k[None, :]
    return made * factor


@triton.jit
def attend(
    query, key, value, begins, ends, out, num_rows, num_cols, width, factor,
    ROWS: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some columns of a head of some rows; row i looks at keys ``[begins[i], ends[i])``."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mask = rows < num_rows
    begin = tl.program_id(1) * width
    within = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    col_mask = within < width
    column = begin + within
    first = tl.load(begins + rows, mask=mask, other=num_rows)
    last = tl.load(ends + rows, mask=mask, other=0)
    least, most = tl.min(first, axis=0), tl.max(last, axis=0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    for at in range(least, most, KEYS):
        keys = at + tl.arange(0, KEYS)
        there = keys < most
        s = scores(query, key, rows, mask, keys, there, num_cols, begin, width, factor)
        mine = (keys[None, :] >= first[:, None]) & (keys[None, :] < last[:, None])
        s = tl.where(mine & (s == s), s, float("-inf"))
        top = tl.maximum(top, tl.max(s, axis=1))
    total = tl.zeros([ROWS], tl.float32)
    made = tl.zeros([ROWS, BLOCK], tl.float32)
    for at in range(least, most, KEYS):
        keys = at + tl.arange(0, KEYS)
        there = keys < most
        s = scores(query, key, rows, mask, keys, there, num_cols, begin, width, factor)
        mine = (keys[None, :] >= first[:, None]) & (keys[None, :] < last[:, None])
        weights = exp_nonpositive(tl.where(mine, s - top[:, None], 0.0))
        for i in range(KEYS):
            # One column of the tile: weights are above zero, so zeros beside it change nothing.
            one = (tl.arange(0, KEYS) == i)[None, :]
            weight = tl.sum(tl.where(one, weights, 0.0), axis=1)
            takes = (at + i >= first) & (at + i < last)
            inside = col_mask & (at + i < most)
            v = tl.load(value + (at + i) * num_cols + column, mask=inside, other=0.0)
            total = tl.where(takes, total + weight, total)
            made = tl.where(takes[:, None], made + weight[:, None] * v[None, :], made)
    place = rows[:, None] * num_cols + column[None, :]
    y = tl.div_rn(made, total[:, None] + tl.zeros_like(made))
    tl.store(out + place, y, mask=mask[:, None] & col_mask[None, :])
