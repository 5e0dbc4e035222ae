"""Rows of one width."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton.finish import along, packed_output
from nodebits.ops.backends.triton.kernels import finish, rows
from nodebits.ops.backends.triton.launch import launch, rule_tiles, tiles
from nodebits.ops.definitions.rows import (
    FakeQuantize,
    FakeQuantizeBackward,
    GatherRows,
    Pack,
    QuantizePack,
    Unpack,
)


def pack(given: Pack) -> Tensor:
    """See the definition."""
    codes, bits = given
    num_rows, num_cols = codes.shape
    size = row_bytes(num_cols, bits)
    out = codes.new_empty((num_rows, size))
    grid, tile = tiles("pack", num_rows, num_cols)
    launch(rows.pack, grid, codes, codes, out, num_rows, num_cols, bits, size, **tile)
    return out


def unpack_to(
    out: Tensor, packed: Tensor, bits: int, order: Tensor | None, shift: Tensor | None
) -> None:
    """Writes the codes of packed rows to rows of ``out``, see the kernel."""
    num_rows, num_cols = packed.size(0), out.size(1)
    grid, tile = tiles("unpack", num_rows, num_cols)
    sizes = num_rows, num_cols, row_bytes(num_cols, bits)
    launch(rows.unpack, grid, out, packed, out, *sizes, order, shift, BITS=bits, **tile)


def unpack(given: Unpack) -> Tensor:
    """See the definition."""
    packed, bits, num_cols = given
    out = packed.new_empty((packed.size(0), num_cols))
    unpack_to(out, packed, bits, None, None)
    return out


def gather_rows(given: GatherRows) -> Tensor:
    """See the definition."""
    source, taken, begin, end, scale, zero_point, axis = given
    taken, num_cols = taken[begin:end], source.num_cols
    # The rows, and a scale of each, may lie in the host's memory.
    out = taken.new_empty((end - begin, num_cols), dtype=torch.float32)
    grid, tile = tiles("gather", *out.shape)
    sizes = *out.shape, row_bytes(num_cols, source.bits)
    launch(
        rows.gather, grid, out, source.packed, taken, out, *sizes, along(scale, axis),
        along(zero_point, axis), BITS=source.bits, **tile,
    )  # fmt: skip
    return out


def fake_quantize(given: FakeQuantize) -> Tensor:
    """See the definition."""
    x, scale, zero_point, axis, bits = given
    out = torch.empty_like(x)
    grid, tile = tiles("fake_quantize", *x.shape)
    most = float((1 << bits) - 1)
    affine = along(scale, axis), along(zero_point, axis)
    launch(rows.fake_quantize, grid, x, x, out, *x.shape, *affine, most, **tile)
    return out


def quantize_pack(given: QuantizePack) -> Tensor:
    """See the definition."""
    x, scale, zero_point, axis, bits, row_factor = given
    num_rows, num_cols = x.shape
    affine = along(scale, axis), along(zero_point, axis)
    out, output = packed_output(x, (num_rows, num_cols), *affine, bits, row_factor)
    grid, tile = tiles("finish_floats", num_rows, num_cols)
    launch(finish.finish_floats, grid, x, x, num_rows, num_cols, (output,), **tile)
    return out


def fake_quantize_backward(given: FakeQuantizeBackward) -> tuple[Tensor, Tensor, Tensor]:
    """See the definition."""
    grad, x, scale, zero_point, axis, bits, mode = given
    num_rows, num_cols = x.shape
    grid, tile = rule_tiles(num_rows, num_cols)
    shape = {-1: grid, 0: (grid[1], num_rows), 1: (grid[0], num_cols)}[axis]
    sums = x.new_empty((2, *shape), dtype=torch.float64)
    grad_x = torch.empty_like(x)
    affine = along(scale, axis), along(zero_point, axis)
    launch(
        rows.fake_quantize_backward, grid, x, grad, x, grad_x, sums[0], sums[1], num_rows, num_cols,
        *affine, float((1 << bits) - 1), AXIS=axis, MODE=mode, **tile,
    )  # fmt: skip
    whole = sums.sum((1, 2)).view(2, 1) if axis == -1 else sums.sum(1)
    return grad_x, (whole[0] / -scale.double()).float(), whole[1].float()
