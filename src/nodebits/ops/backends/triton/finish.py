"""Records as kernels take them: tuples of tensors, and None where one is missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.core.places import check_places
from nodebits.ops.records import Epilogue, Output, Own, Sink, Source

Slots = tuple[Tensor | None, Tensor | None, Tensor | None]
NO_EPILOGUE = (None, None, None, None, None, 1)
NO_AFTER = (None, None, None)


class Results(NamedTuple):
    """What a fused operator returns, and where kernels write it.

    Attributes:
        tensors: To be returned.
        floats: The float rows, where they are what is returned.
        outputs: A tuple per quantizer.
    """

    tensors: list[Tensor]
    floats: Tensor | None
    outputs: tuple[Any, ...]


def along(t: Tensor, axis: int) -> Slots:
    """A scale or zero point as (one value, per row, per column); one of them is given."""
    if axis == -1:
        return t, None, None
    return (None, t, None) if axis == 0 else (None, None, t)


def epilogue_of(epilogue: Epilogue) -> tuple[Any, ...]:
    """Checked column and row factors, and how many groups of columns these have."""
    grouped = epilogue.row_offset if epilogue.row_scale is None else epilogue.row_scale
    heads = 1 if grouped is None else grouped.size(1)
    return *epilogue[:2], epilogue.row_offset, epilogue.row_scale, epilogue.bias, heads


def own_of(own: Own, source: Source) -> tuple[Any, ...]:
    """Own rows, their factor, and the bytes of a row."""
    return own.own, own.own_factor, row_bytes(source.num_cols, source.bits)


def after_of(sink: Sink) -> tuple[Any, ...]:
    """What comes between float rows and quantizers."""
    return sink.post_scale, sink.post_shift, 1 if sink.relu else None


def bucket_begins(counts: Any, num_cols: int, device: torch.device) -> tuple[Tensor, int]:
    """The byte at which the rows of each width begin, int64 ``[8]``, and the bytes of all."""
    begins = [0]
    for bits, count in enumerate(counts, start=1):
        begins.append(begins[-1] + count * row_bytes(num_cols, bits))
    return torch.tensor(begins[:8], device=device), begins[8]


def packed_output(
    like: Tensor,
    shape: tuple[int, int],
    scale: Slots,
    zero_point: Slots,
    bits: int,
    row_factor: Tensor | None,
) -> tuple[Tensor, tuple[Any, ...]]:
    """Rows of one width to be written, and their quantizer."""
    size = row_bytes(shape[1], bits)
    out = like.new_empty((shape[0], size), dtype=torch.uint8)
    most = float((1 << bits) - 1)
    nowhere = None, None, None, None
    return out, (out, scale, zero_point, bits, most, size, row_factor, nowhere)


def bucketed_output(
    like: Tensor,
    num_cols: int,
    scale: Slots,
    zero_point: Tensor,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None,
) -> tuple[Tensor, tuple[Any, ...]]:
    """Rows in buckets to be written, and their quantizer."""
    begins, size = bucket_begins(check_places(widths, position), num_cols, like.device)
    out = like.new_empty(size, dtype=torch.uint8)
    place = widths, position, begins, None
    return out, (out, scale, zero_point, 8, 255.0, 0, row_factor, place)


def _output(like: Tensor, shape: tuple[int, int], to: Output) -> tuple[Tensor, tuple[Any, ...]]:
    scale = along(to.scale, 0 if to.position is not None else -1 if to.scale.numel() == 1 else 1)
    if to.widths is None:
        zero = along(to.zero_point, -1 if to.zero_point.numel() == 1 else 1)
        return packed_output(like, shape, scale, zero, to.out_bits, to.row_factor)
    if to.position is not None:
        return bucketed_output(
            like, shape[1], scale, to.zero_point, to.widths, to.position, to.row_factor
        )
    out = like.new_empty(shape, dtype=torch.uint8)
    place = to.widths, None, None, to.shift
    return out, (out, scale, to.zero_point, 8, 255.0, 0, to.row_factor, place)


def results_of(sink: Sink, like: Tensor, shape: tuple[int, int]) -> Results:
    """Memory for what a sink makes of float rows ``shape``, beside ``like``."""
    if not sink.outputs:
        floats = like.new_empty(shape, dtype=torch.float32)
        return Results([floats], floats, ())
    made = [_output(like, shape, one) for one in sink.outputs]
    return Results([out for out, _ in made], None, tuple(one for _, one in made))
