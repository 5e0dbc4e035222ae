"""Products of packed rows with packed weights, plain and fused, and the epilogue alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton.finish import (
    NO_AFTER,
    NO_EPILOGUE,
    after_of,
    epilogue_of,
    results_of,
)
from nodebits.ops.backends.triton.kernels import finish, products
from nodebits.ops.backends.triton.launch import launch, sizes_of, tiles
from nodebits.ops.backends.triton.sums import plain
from nodebits.ops.definitions.fused import FusedGemm
from nodebits.ops.definitions.products import Gemm, Rescale
from nodebits.ops.definitions.training import RescaleFloats
from nodebits.ops.records import Source, Weight


def multiply(
    source: Source,
    weight: Weight,
    order: Tensor | None,
    out: Tensor | None,
    then: tuple[Any, ...],
) -> None:
    """Multiplies rows of one width.

    Args:
        source: Its rows.
        weight: M rows.
        order: Which row of the result each is; None for its own number.
        out: int32 results, or None.
        then: From epilogue to quantizers, as the kernel takes them.
    """
    num_rows, num_cols, depth = source.packed.size(0), weight.w_packed.size(0), source.num_cols
    tile = sizes_of("multiply", source.bits, weight.w_bits, num_rows, num_cols, depth)
    grid = -(-num_rows // tile["ROWS"]), -(-num_cols // tile["COLS"])
    sizes = num_rows, depth, num_cols
    bytes_of = row_bytes(depth, source.bits), row_bytes(depth, weight.w_bits)
    launch(
        products.multiply, grid, source.packed, source.packed, bytes_of[0], order, weight.w_packed,
        bytes_of[1], *sizes, out, *then, BITS=source.bits, W_BITS=weight.w_bits,
        MIDRISE=weight.midrise, **tile,
    )  # fmt: skip


def gemm(given: Gemm) -> Tensor:
    """See the definition."""
    source, weight = given
    shape = source.packed.size(0), weight.w_packed.size(0)
    acc = source.packed.new_empty(shape, dtype=torch.int32)
    multiply(plain(source), weight, None, acc, (NO_EPILOGUE, None, NO_AFTER, None, ()))
    return acc


def fused_gemm(given: FusedGemm) -> list[Tensor]:
    """See the definition. The sum of all products but the last exists as a float matrix."""
    products, sink = given
    *first, last = products
    shape, like = last.shape, last.source.packed
    total: Tensor | None = None
    for one in first:
        floats = like.new_empty(shape, dtype=torch.float32)
        then = epilogue_of(one.epilogue), total, NO_AFTER, floats, ()
        multiply(plain(one.source), one.weight, None, None, then)
        total = floats
    made = results_of(sink, like, shape)
    ends = after_of(sink), made.floats, made.outputs
    multiply(
        plain(last.source), last.weight, None, None, (epilogue_of(last.epilogue), total, *ends)
    )
    return made.tensors


def rescale(given: Rescale | RescaleFloats) -> Tensor:
    """See the definition. What is summed may be float32 already."""
    acc, epilogue = given
    num_rows, num_cols = acc.shape
    y = torch.empty_like(acc, dtype=torch.float32)
    grid, tile = tiles("finish_sums", num_rows, num_cols)
    launch(
        finish.finish_sums, grid, acc, acc, None, num_rows, num_cols, (None, None),
        epilogue_of(epilogue), (None, None, 0), NO_AFTER, y, (), BITS=8, **tile,
    )  # fmt: skip
    return y
