"""Packed rows in a kernel: codes of a tile of columns, and back."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def read_at(packed, starts, row_mask, column, col_mask, BITS: tl.constexpr):
    """Codes int32 ``[R, C]`` of any columns ``[C]``; 0 outside of the masks."""
    byte, shift = (column * BITS) // 8, (column * BITS) % 8
    inside = row_mask[:, None] & col_mask[None, :]
    place = starts[:, None] + byte[None, :]
    text = tl.load(packed + place, mask=inside, other=0).to(tl.int32)
    if 8 % BITS != 0:  # a field lies in two bytes at most
        crosses = inside & (shift + BITS > 8)[None, :]
        text |= tl.load(packed + place + 1, mask=crosses, other=0).to(tl.int32) << 8
    return (text >> shift[None, :]) & ((1 << BITS) - 1)


@triton.jit
def read(packed, starts, row_mask, first, num_cols, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Codes int32 ``[R, BLOCK]`` of the columns from ``first`` on; padding is not cleared.

    ``starts`` int64 ``[R]`` are the bytes at which rows begin; ``first`` and ``BLOCK`` are
    multiples of 8.
    """
    MASK: tl.constexpr = (1 << BITS) - 1
    ROWS: tl.constexpr = starts.shape[0]
    if 8 % BITS == 0:
        PER: tl.constexpr = 8 // BITS
        byte = first // PER + tl.arange(0, BLOCK // PER)
        inside = row_mask[:, None] & (byte < (num_cols * BITS + 7) // 8)[None, :]
        place = starts[:, None] + byte[None, :]
        codes = tl.load(packed + place, mask=inside, other=0).to(tl.int32)
        if PER > 1:
            shift = tl.arange(0, PER) * BITS
            codes = (codes[:, :, None] >> shift[None, None, :]) & MASK
            codes = tl.reshape(codes, [ROWS, BLOCK])
    else:
        column = first + tl.arange(0, BLOCK)
        codes = read_at(packed, starts, row_mask, column, column < num_cols, BITS)
    return codes


@triton.jit
def write(packed, starts, row_mask, first, num_cols, codes, bits, BLOCK: tl.constexpr):
    """Packs int32 codes ``[R, BLOCK]`` of the columns from ``first`` on.

    ``bits`` is one number or int64 ``[R]``: eight codes are the bytes of one 64-bit number,
    whatever their width.
    """
    ROWS: tl.constexpr = starts.shape[0]
    GROUPS: tl.constexpr = BLOCK // 8
    column = first + tl.arange(0, BLOCK)
    kept = tl.where((column < num_cols)[None, :], codes, 0)
    fields = tl.reshape(kept, [ROWS, GROUPS, 8]).to(tl.int64)
    eight = tl.arange(0, 8).to(tl.int64)[None, None, :]
    width = (tl.zeros([ROWS], tl.int64) + bits)[:, None, None]
    text = tl.sum(fields << (eight * width), axis=2)
    value = ((text[:, :, None] >> (8 * eight)) & 255).to(tl.uint8)
    group = (first // 8 + tl.arange(0, GROUPS)).to(tl.int64)[None, :, None]
    byte = group * width + eight
    inside = row_mask[:, None, None] & (eight < width) & (byte < (num_cols * width + 7) // 8)
    tl.store(packed + (starts[:, None, None] + byte), value, mask=inside)


@triton.jit
def encode(values, scale, zero_point, most):
    """Codes ``clamp(rne(values / scale + zero_point), 0, most)`` as float32; NaN gives 0."""
    v = tl.div_rn(values, scale) + zero_point
    v = tl.where(v > 0.0, v, 0.0)
    v = tl.where(v < most, v, most)
    # Between the bounds, which are integers, adding 2^23 leaves no place for a fraction: half to
    # even.
    return (v + 8388608.0) - 8388608.0
