"""Gradients of the epilogue."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.finish import by_group


@triton.jit
def rescale_backward(
    grad, acc, grad_acc, sums, num_rows, num_cols, epilogue,
    LINES: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of ``LINES`` rows; ``sums`` are three matrices ``[row tiles, C]``.

    They are those of ``col_scale``, ``col_offset`` and the bias, in float64, in order of the rows.
    """
    col_scale, col_offset, row_offset, row_scale, _, heads = epilogue
    block = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    col_mask = column < num_cols
    of_scale = tl.zeros([BLOCK], tl.float64)
    of_offset = tl.zeros([BLOCK], tl.float64)
    of_bias = tl.zeros([BLOCK], tl.float64)
    scale = tl.load(col_scale + column, mask=col_mask, other=0.0)[None, :]
    begin = block * LINES
    for line in range(begin, tl.minimum(begin + LINES, num_rows), ROWS):
        rows = line + tl.arange(0, ROWS)
        mask = rows < num_rows
        place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
        inside = mask[:, None] & col_mask[None, :]
        g = tl.load(grad + place, mask=inside, other=0.0)
        before = g
        if row_scale is not None:
            before = before * by_group(row_scale, rows, mask, column, num_cols, heads)
        made = before * scale
        tl.store(grad_acc + place, made, mask=inside)
        centred = tl.load(acc + place, mask=inside, other=0.0)
        if col_offset is not None:
            offset = tl.load(col_offset + column, mask=col_mask, other=0.0)[None, :]
            if row_offset is not None:
                factor = by_group(row_offset, rows, mask, column, num_cols, heads)
                offset = factor * offset
                made = made * factor
            centred = centred - offset
            of_offset -= tl.sum(tl.where(inside, made, 0.0).to(tl.float64), axis=0)
        product = tl.where(inside, before * centred, 0.0)
        of_scale += tl.sum(product.to(tl.float64), axis=0)
        of_bias += tl.sum(g.to(tl.float64), axis=0)
    at = block.to(tl.int64) * num_cols + column
    tl.store(sums[0] + at, of_scale, mask=col_mask)
    tl.store(sums[1] + at, of_offset, mask=col_mask)
    tl.store(sums[2] + at, of_bias, mask=col_mask)
