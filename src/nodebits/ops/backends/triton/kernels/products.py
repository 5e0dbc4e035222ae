"""Products of packed codes with packed weights on the units for int8 matrices."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import read
from nodebits.ops.backends.triton.kernels.finish import finish


@triton.jit
def multiply(
    packed, x_bytes, order, weight, w_bytes, num_rows, depth, num_cols, out, epilogue, before,
    after, floats, outputs, BITS: tl.constexpr, W_BITS: tl.constexpr, MIDRISE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of results: int32 to ``out``, or on to what is fused.

    Row i is that of ``order[i]``, or i. Fields are unpacked in registers. Codes of 8 bits lie 128
    lower than they are, which the sums of the weights make up for.
    """
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * COLS
    mask = line < num_rows
    column = first + tl.arange(0, COLS)
    col_mask = column < num_cols
    starts = line.to(tl.int64) * x_bytes
    w_starts = column.to(tl.int64) * w_bytes
    SIGN: tl.constexpr = 1 << (W_BITS - 1)
    acc = tl.zeros([ROWS, COLS], tl.int32)
    total = tl.zeros([COLS], tl.int32)
    for k in range(0, depth, DEPTH):
        x = read(packed, starts, mask, k, depth, BITS, DEPTH)
        w = (read(weight, w_starts, col_mask, k, depth, W_BITS, DEPTH) ^ SIGN) - SIGN
        if MIDRISE:
            w = 2 * w + 1
        w = tl.where((k + tl.arange(0, DEPTH) < depth)[None, :], w, 0)
        if BITS == 8:
            total += tl.sum(w, axis=1)
            x = x - 128
        acc = tl.dot(x.to(tl.int8), tl.trans(w.to(tl.int8)), acc, out_dtype=tl.int32)
    if BITS == 8:
        acc += (total * 128)[None, :]
    rows = line
    if order is not None:
        rows = tl.load(order + line, mask=mask, other=0)
    if out is not None:
        place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
        tl.store(out + place, acc, mask=mask[:, None] & col_mask[None, :])
    else:
        finish(
            acc, rows, mask, first, num_cols, (None, None), epilogue, (None, None, 0), before,
            after, floats, outputs, 8, COLS,
        )  # fmt: skip
