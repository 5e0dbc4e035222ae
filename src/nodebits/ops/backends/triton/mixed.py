"""Rows of several widths: a launch per width that occurs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton.finish import (
    after_of,
    along,
    bucketed_output,
    epilogue_of,
    results_of,
)
from nodebits.ops.backends.triton.kernels import finish, mixed
from nodebits.ops.backends.triton.launch import launch, sizes_of, tiles
from nodebits.ops.backends.triton.products import multiply
from nodebits.ops.backends.triton.rows import unpack_to
from nodebits.ops.definitions.fused import FusedGemmBucketed
from nodebits.ops.definitions.mixed import NearestGroup, QuantizePackBucketed, UnpackBucketed
from nodebits.ops.records import Mixed, Source


def _buckets(rows: Mixed) -> Iterator[tuple[Source, Tensor]]:
    """The rows of every width that occurs, and which rows of the matrix they are."""
    begin = place = 0
    for bits, count in enumerate(rows.counts, start=1):
        size = row_bytes(rows.num_cols, bits)
        if count:
            packed = rows.packed[begin : begin + count * size].view(count, size)
            yield Source(packed, bits, rows.num_cols), rows.order[place : place + count]
        begin, place = begin + count * size, place + count


def quantize_pack_bucketed(given: QuantizePackBucketed) -> Tensor:
    """See the definition."""
    x, scale, zero_point, axis, widths, position, row_factor = given
    num_rows, num_cols = x.shape
    to = along(scale, axis), zero_point, widths, position, row_factor
    out, output = bucketed_output(x, num_cols, *to)
    grid, tile = tiles("finish_floats", num_rows, num_cols)
    launch(finish.finish_floats, grid, x, x, num_rows, num_cols, (output,), **tile)
    return out


def unpack_bucketed(given: UnpackBucketed) -> Tensor:
    """See the definition."""
    rows, shift = given
    codes = rows.packed.new_empty((rows.order.numel(), rows.num_cols))
    for source, order in _buckets(rows):
        unpack_to(codes, source.packed, source.bits, order, shift)
    return codes


def nearest_group(given: NearestGroup) -> Tensor:
    """See the definition."""
    extent, limits = given
    out = torch.empty_like(extent, dtype=torch.int32)
    num_rows, count = extent.numel(), limits.numel()
    sizes = sizes_of("nearest_group", num_rows)
    launch(
        mixed.nearest_group, (-(-num_rows // sizes["ROWS"]),), extent, extent, limits, out,
        num_rows, count, count.bit_length(), **sizes,
    )  # fmt: skip
    return out


def fused_gemm_bucketed(given: FusedGemmBucketed) -> list[Tensor]:
    """See the definition."""
    source, weight, epilogue, sink = given
    made = results_of(sink, source.packed, (source.order.numel(), weight.w_packed.size(0)))
    then = epilogue_of(epilogue), None, after_of(sink), made.floats, made.outputs
    for rows, order in _buckets(source):
        multiply(rows, weight, order, None, then)
    return made.tensors
