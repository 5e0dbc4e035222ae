"""What follows integer sums: int32 transform, epilogue, own rows, affine, ReLU, quantizers.

Arguments that belong together come as tuples, in the order of their records. A missing tensor is
None, which Triton compiles away.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import encode, read, write


@triton.jit
def by_group(values, rows, row_mask, column, num_cols, heads):
    """Factors ``[N, heads]`` of rows as a tile, one for each group of columns."""
    group = rows.to(tl.int64)[:, None] * heads + (column // (num_cols // heads))[None, :]
    mask = row_mask[:, None] & (column < num_cols)[None, :]
    return tl.load(values + group, mask=mask, other=0.0)


@triton.jit
def rescaled(acc, rows, row_mask, column, num_cols, epilogue):
    """``((acc - row_offset * col_offset) * col_scale) * row_scale + bias``, as its record says."""
    col_scale, col_offset, row_offset, row_scale, bias, heads = epilogue
    col_mask = column < num_cols
    y = acc.to(tl.float32)
    if col_offset is not None:
        offset = tl.load(col_offset + column, mask=col_mask, other=0.0)[None, :]
        if row_offset is not None:
            offset = by_group(row_offset, rows, row_mask, column, num_cols, heads) * offset
        y = y - offset
    y = y * tl.load(col_scale + column, mask=col_mask, other=0.0)[None, :]
    if row_scale is not None:
        y = y * by_group(row_scale, rows, row_mask, column, num_cols, heads)
    if bias is not None:
        y = y + tl.load(bias + column, mask=col_mask, other=0.0)[None, :]
    return y


@triton.jit
def with_own(
    y, rows, row_mask, first, num_cols, own, epilogue, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Adds ``own_factor * ((own_codes - col_offset) * col_scale)`` where a target has own rows."""
    packed, factor, row_bytes = own
    col_scale, col_offset = epilogue[0], epilogue[1]
    if packed is not None:
        column = first + tl.arange(0, BLOCK)
        mask = column < num_cols
        starts = rows.to(tl.int64) * row_bytes
        centred = read(packed, starts, row_mask, first, num_cols, BITS, BLOCK).to(tl.float32)
        if col_offset is not None:
            centred = centred - tl.load(col_offset + column, mask=mask, other=0.0)[None, :]
        scale = tl.load(col_scale + column, mask=mask, other=0.0)[None, :]
        y = y + tl.load(factor) * (centred * scale)
    return y


@triton.jit
def deliver(y, rows, row_mask, first, num_cols, after, floats, outputs, BLOCK: tl.constexpr):
    """Float rows ``[R, BLOCK]``, to memory or to quantizers, after an affine and a ReLU.

    ``after`` is (post_scale, post_shift, relu): relu is None or anything else.
    """
    post_scale, post_shift, relu = after
    column = first + tl.arange(0, BLOCK)
    col_mask = column < num_cols
    if post_scale is not None:
        y = y * tl.load(post_scale + column, mask=col_mask, other=0.0)[None, :]
        y = y + tl.load(post_shift + column, mask=col_mask, other=0.0)[None, :]
    if relu is not None:
        y = tl.where(y < 0.0, 0.0, y)  # NaN and -0 stay, as in torch
    if floats is not None:
        place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
        tl.store(floats + place, y, mask=row_mask[:, None] & col_mask[None, :])
    for i in tl.static_range(len(outputs)):
        quantize(y, rows, row_mask, first, num_cols, outputs[i], BLOCK)


@triton.jit
def quantize(y, rows, row_mask, first, num_cols, output, BLOCK: tl.constexpr):
    """One quantizer: packed rows of one width, rows in buckets, or shifted bytes.

    ``output`` is (out, scale, zero_point, bits, largest code, row_bytes, row_factor, place). Scale
    and zero point are (one, per row, per column) each, one of them given; the zero point may be by
    width instead. ``place`` is (widths, position, begins, shift).
    """
    out, scale, zero_point, bits, most, row_bytes, row_factor, place = output
    widths, position, begins, shift = place
    column = first + tl.arange(0, BLOCK)
    wide = rows.to(tl.int64)
    if shift is not None:
        left = tl.load(shift + rows, mask=row_mask, other=0).to(tl.int32)
        factor = ((127 - left) << 23).to(tl.float32, bitcast=True)
        if row_factor is not None:
            factor = tl.load(row_factor + rows, mask=row_mask, other=0.0) * factor
        y = y * factor[:, None]
    elif row_factor is not None:
        y = y * tl.load(row_factor + rows, mask=row_mask, other=0.0)[:, None]
    divisor = parameter(scale, rows, row_mask, column, num_cols)
    if widths is not None:
        width = tl.load(widths + rows, mask=row_mask, other=1).to(tl.int32)
        most = ((1 << width) - 1).to(tl.float32)[:, None]
        zero = tl.load(zero_point + (width - 1), mask=row_mask, other=0.0)[:, None]
    else:
        zero = parameter(zero_point, rows, row_mask, column, num_cols)
    codes = encode(y, divisor, zero, most).to(tl.int32)
    if shift is not None:
        codes = codes << left[:, None]
        at = wide[:, None] * num_cols + column[None, :]
        mask = row_mask[:, None] & (column < num_cols)[None, :]
        tl.store(out + at, codes.to(tl.uint8), mask=mask)
    elif position is not None:
        size = (num_cols * width + 7) // 8
        begin = tl.load(begins + (width - 1), mask=row_mask, other=0)
        starts = begin + tl.load(position + rows, mask=row_mask, other=0).to(tl.int64) * size
        write(out, starts, row_mask, first, num_cols, codes, width.to(tl.int64), BLOCK)
    else:
        write(out, wide * row_bytes, row_mask, first, num_cols, codes, bits, BLOCK)


@triton.jit
def parameter(values, rows, row_mask, column, num_cols):
    """A scale or zero point as a tile that fits ``[R, BLOCK]``."""
    one, per_row, per_column = values
    if one is not None:
        found = tl.load(one)
    elif per_row is not None:
        found = tl.load(per_row + rows, mask=row_mask, other=1.0)[:, None]
    else:
        found = tl.load(per_column + column, mask=column < num_cols, other=1.0)[None, :]
    return found


@triton.jit
def finish(
    acc, rows, row_mask, first, num_cols, transform, epilogue, own, before, after, floats, outputs,
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From int32 ``[R, BLOCK]`` to what a fused operator returns, for any of its rows."""
    acc_scale, acc_offset = transform
    column = first + tl.arange(0, BLOCK)
    if acc_scale is not None:
        acc = acc * tl.load(acc_scale + rows, mask=row_mask, other=0)[:, None]
    if acc_offset is not None:
        acc = acc + tl.load(acc_offset + rows, mask=row_mask, other=0)[:, None]
    y = rescaled(acc, rows, row_mask, column, num_cols, epilogue)
    y = with_own(y, rows, row_mask, first, num_cols, own, epilogue, BITS, BLOCK)
    if before is not None:  # the products before this one
        place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
        mask = row_mask[:, None] & (column < num_cols)[None, :]
        y = tl.load(before + place, mask=mask, other=0.0) + y
    deliver(y, rows, row_mask, first, num_cols, after, floats, outputs, BLOCK)


@triton.jit
def finish_sums(
    acc, chosen, num_rows, num_cols, transform, epilogue, own, after, floats, outputs,
    BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """:func:`finish` of sums in memory, int32 or float32; row i is of ``chosen[i]``, or of i."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = line < num_rows
    rows = line
    if chosen is not None:
        rows = tl.load(chosen + line, mask=mask, other=0)
    column = first + tl.arange(0, BLOCK)
    place = line.to(tl.int64)[:, None] * num_cols + column[None, :]
    inside = mask[:, None] & (column < num_cols)[None, :]
    sums = tl.load(acc + place, mask=inside, other=0)
    finish(
        sums, rows, mask, first, num_cols, transform, epilogue, own, None, after, floats, outputs,
        BITS, BLOCK,
    )  # fmt: skip


@triton.jit
def finish_floats(x, num_rows, num_cols, outputs, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """What quantizers make of float rows in memory."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = rows < num_rows
    column = first + tl.arange(0, BLOCK)
    place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
    inside = mask[:, None] & (column < num_cols)[None, :]
    y = tl.load(x + place, mask=inside, other=0.0)
    deliver(y, rows, mask, first, num_cols, (None, None, None), None, outputs, BLOCK)
