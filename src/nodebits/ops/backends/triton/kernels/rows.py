"""Rows of one width: packing, unpacking, gathering, and what training does with them."""

from __future__ import annotations

import triton
import triton.language as tl

from nodebits.ops.backends.triton.kernels.fields import encode, read, write
from nodebits.ops.backends.triton.kernels.finish import parameter


@triton.jit
def pack(codes, out, num_rows, num_cols, bits, row_bytes, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Bytes ``[N, C]`` to fields."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = rows < num_rows
    column = first + tl.arange(0, BLOCK)
    wide = rows.to(tl.int64)
    place = wide[:, None] * num_cols + column[None, :]
    inside = mask[:, None] & (column < num_cols)[None, :]
    values = tl.load(codes + place, mask=inside, other=0).to(tl.int32) & ((1 << bits) - 1)
    write(out, wide * row_bytes, mask, first, num_cols, values, bits, BLOCK)


@triton.jit
def unpack(
    packed, out, num_rows, num_cols, row_bytes, order, shift,
    BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fields to bytes; row i goes to ``order[i]``, or to i, shifted left by its ``shift``."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = line < num_rows
    column = first + tl.arange(0, BLOCK)
    codes = read(packed, line.to(tl.int64) * row_bytes, mask, first, num_cols, BITS, BLOCK)
    rows = line
    if order is not None:
        rows = tl.load(order + line, mask=mask, other=0)
    if shift is not None:
        codes = codes << tl.load(shift + rows, mask=mask, other=0).to(tl.int32)[:, None]
    place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
    inside = mask[:, None] & (column < num_cols)[None, :]
    tl.store(out + place, codes.to(tl.uint8), mask=inside)


@triton.jit
def gather(
    packed, index, out, num_rows, num_cols, row_bytes, scale, zero_point,
    BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows taken by an index, decoded."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = line < num_rows
    column = first + tl.arange(0, BLOCK)
    taken = tl.load(index + line, mask=mask, other=0)
    codes = read(packed, taken.to(tl.int64) * row_bytes, mask, first, num_cols, BITS, BLOCK)
    zero = parameter(zero_point, taken, mask, column, num_cols)
    y = (codes.to(tl.float32) - zero) * parameter(scale, taken, mask, column, num_cols)
    place = line.to(tl.int64)[:, None] * num_cols + column[None, :]
    tl.store(out + place, y, mask=mask[:, None] & (column < num_cols)[None, :])


@triton.jit
def take(table, index, out, num_rows, size, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of ``size`` units taken by an index, as they are."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = line < num_rows
    taken = tl.load(index + line, mask=mask, other=0).to(tl.int64)
    inside = mask[:, None] & (unit < size)[None, :]
    values = tl.load(table + (taken[:, None] * size + unit[None, :]), mask=inside, other=0)
    tl.store(out + (line.to(tl.int64)[:, None] * size + unit[None, :]), values, mask=inside)


@triton.jit
def fake_quantize(
    x, out, num_rows, num_cols, scale, zero_point, most,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes as floats."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    mask = rows < num_rows
    column = first + tl.arange(0, BLOCK)
    place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
    inside = mask[:, None] & (column < num_cols)[None, :]
    values = tl.load(x + place, mask=inside, other=0.0)
    divisor = parameter(scale, rows, mask, column, num_cols)
    zero = parameter(zero_point, rows, mask, column, num_cols)
    tl.store(out + place, encode(values, divisor, zero, most), mask=inside)


@triton.jit
def fake_quantize_backward(
    grad, x, grad_x, scale_sums, zero_sums, num_rows, num_cols, scale, zero_point, most,
    AXIS: tl.constexpr, MODE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Straight-through gradients; the sums of a tile, which are added in order afterwards.

    Those of the scale are divided by minus the scale then.

    ``scale_sums`` and ``zero_sums`` are float64 ``[column tiles, N]`` along rows, ``[row tiles,
    C]`` along columns, ``[row tiles, column tiles]`` for one scale.
    """
    block, side = tl.program_id(0), tl.program_id(1)
    rows, first = block * ROWS + tl.arange(0, ROWS), side * BLOCK
    mask = rows < num_rows
    column = first + tl.arange(0, BLOCK)
    place = rows.to(tl.int64)[:, None] * num_cols + column[None, :]
    valid = mask[:, None] & (column < num_cols)[None, :]
    g = tl.load(grad + place, mask=valid, other=0.0)
    divisor = parameter(scale, rows, mask, column, num_cols)
    ratio = tl.div_rn(tl.load(x + place, mask=valid, other=0.0), divisor)
    v = ratio + parameter(zero_point, rows, mask, column, num_cols)
    if MODE == 2:  # the code is neither of the end ones; most is odd, and halves go to even
        inside = (v > 0.5) & (v <= most - 0.5)
    else:
        inside = (v >= 0.0) & (v <= most)
    masked = tl.where(inside, g, 0.0)
    if MODE == 1:
        made = tl.div_rn(g, divisor)
    else:
        made = tl.where(inside, tl.div_rn(masked, divisor), 0.0)
    tl.store(grad_x + place, made, mask=valid)
    counted = inside & valid
    of_scale = tl.where(counted, masked * ratio, 0.0).to(tl.float64)
    of_zero = tl.where(valid, masked, 0.0).to(tl.float64)
    if AXIS == 0:
        at = side.to(tl.int64) * num_rows + rows
        tl.store(scale_sums + at, tl.sum(of_scale, axis=1), mask=mask)
        tl.store(zero_sums + at, tl.sum(of_zero, axis=1), mask=mask)
    elif AXIS == 1:
        at = block.to(tl.int64) * num_cols + column
        tl.store(scale_sums + at, tl.sum(of_scale, axis=0), mask=column < num_cols)
        tl.store(zero_sums + at, tl.sum(of_zero, axis=0), mask=column < num_cols)
    else:
        at = block * tl.num_programs(1) + side
        tl.store(scale_sums + at, tl.sum(tl.sum(of_scale, axis=1), axis=0))
        tl.store(zero_sums + at, tl.sum(tl.sum(of_zero, axis=1), axis=0))
