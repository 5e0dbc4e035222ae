"""Rows of one width."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton.finish import along, packed_output
from nodebits.ops.backends.triton.kernels import finish, rows
from nodebits.ops.backends.triton.launch import launch, tiles
from nodebits.ops.records import Source


def pack(codes: Tensor, bits: int) -> Tensor:
    """See the definition."""
    num_rows, num_cols = codes.shape
    size = row_bytes(num_cols, bits)
    out = codes.new_empty((num_rows, size))
    grid, tile = tiles(num_rows, num_cols)
    launch(rows.pack, grid, codes, codes, out, num_rows, num_cols, bits, size, **tile)
    return out


def unpack_to(
    out: Tensor, packed: Tensor, bits: int, order: Tensor | None, shift: Tensor | None
) -> None:
    """Writes the codes of packed rows to rows of ``out``, see the kernel."""
    num_rows, num_cols = packed.size(0), out.size(1)
    grid, tile = tiles(num_rows, num_cols)
    sizes = num_rows, num_cols, row_bytes(num_cols, bits)
    launch(rows.unpack, grid, out, packed, out, *sizes, order, shift, BITS=bits, **tile)


def unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """See the definition."""
    out = packed.new_empty((packed.size(0), num_cols))
    unpack_to(out, packed, bits, None, None)
    return out


def gather_rows(
    source: Source,
    index: Tensor,
    begin: int,
    end: int,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
) -> Tensor:
    """See the definition."""
    taken, num_cols = index[begin:end], source.num_cols
    out = scale.new_empty((end - begin, num_cols))
    grid, tile = tiles(*out.shape)
    sizes = *out.shape, row_bytes(num_cols, source.bits)
    launch(
        rows.gather, grid, out, source.packed, taken, out, *sizes, along(scale, axis),
        along(zero_point, axis), BITS=source.bits, **tile,
    )  # fmt: skip
    return out


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """See the definition."""
    out = torch.empty_like(x)
    grid, tile = tiles(*x.shape)
    most = float((1 << bits) - 1)
    affine = along(scale, axis), along(zero_point, axis)
    launch(rows.fake_quantize, grid, x, x, out, *x.shape, *affine, most, **tile)
    return out


def quantize_pack(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, row_factor: Tensor | None
) -> Tensor:
    """See the definition."""
    num_rows, num_cols = x.shape
    affine = along(scale, axis), along(zero_point, axis)
    out, output = packed_output(x, (num_rows, num_cols), *affine, bits, row_factor)
    grid, tile = tiles(num_rows, num_cols)
    launch(finish.finish_floats, grid, x, x, num_rows, num_cols, (output,), **tile)
    return out


def fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See the definition."""
    num_rows, num_cols = x.shape
    grid, tile = tiles(num_rows, num_cols)
    shape = {-1: grid, 0: (grid[1], num_rows), 1: (grid[0], num_cols)}[axis]
    sums = x.new_empty((2, *shape), dtype=torch.float64)
    grad_x = torch.empty_like(x)
    affine = along(scale, axis), along(zero_point, axis)
    launch(
        rows.fake_quantize_backward, grid, x, grad, x, grad_x, sums[0], sums[1], num_rows, num_cols,
        *affine, float((1 << bits) - 1), AXIS=axis, MODE=mode, **tile,
    )  # fmt: skip
    whole = sums.sum((1, 2)).view(2, 1) if axis == -1 else sums.sum(1)
    return grad_x, whole[0].float(), whole[1].float()
