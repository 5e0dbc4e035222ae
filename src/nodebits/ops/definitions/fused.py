"""Fused operators: an integer product, its epilogue, and the quantizers that read the result.

Between the packed rows that go in and those that come out only a tile of int32 and float32 exists,
in the cache. Bit for bit the result of the operators one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops.definitions.mixed import quantize_pack_bucketed, unpack_bucketed
from nodebits.ops.definitions.products import gemm, spmm
from nodebits.ops.definitions.rows import fake_quantize, quantize_pack
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import (
    Edges,
    Epilogue,
    Mixed,
    Output,
    Own,
    Product,
    Sink,
    Source,
    Weight,
    one_per_row,
)


def finished(sink: Sink, rows: Any, cols: Any, work: float) -> list[Result]:
    """What a sink makes of float rows ``[rows, cols]``."""
    if not sink.outputs:
        return [Result((rows, cols), torch.float32, None, work)]
    made = []
    for output in sink.outputs:
        if output.widths is None:
            made.append(Result.packed(rows, cols, output.out_bits, work))
        elif output.position is None:
            made.append(Result((rows, cols), torch.uint8, None, work))
        else:
            made.append(Result((rows, cols), torch.uint8, output.widths, work))
    return made


def finish(
    y: Tensor, sink: Sink, quantize: Callable[..., Tensor] = quantize_pack.reference
) -> list[Tensor]:
    """Float rows, or what each quantizer makes of them, after an optional affine and ReLU."""
    if sink.post_scale is not None and sink.post_shift is not None:
        y = y * sink.post_scale + sink.post_shift
    if sink.relu:
        y = torch.relu(y)
    return [_quantized(y, output, quantize) for output in sink.outputs] or [y]


def complete(
    acc: Tensor,
    source: Source,
    own: Own,
    epilogue: Epilogue,
    sink: Sink,
    rescale: Callable[[Tensor, Epilogue], Tensor] = lambda acc, epilogue: epilogue.apply(acc),
    quantize: Callable[..., Tensor] = quantize_pack.reference,
) -> list[Tensor]:
    """What follows a neighbour sum, of its int32 rows.

    Args:
        acc: int32 ``[R, C]``.
        source: What was summed.
        own: As in :func:`fused_spmm`.
        epilogue: Likewise.
        sink: Likewise.
        rescale: The operator of that name, or its definition.
        quantize: ``quantize_pack``, likewise.
    """
    if own.acc_scale is not None:
        acc = acc * own.acc_scale.view(-1, 1)
    if own.acc_offset is not None:
        acc = acc + own.acc_offset.view(-1, 1)
    y = rescale(acc, epilogue)
    if own.own is not None and own.own_factor is not None:
        centred = source._replace(packed=own.own).codes().to(torch.float32)
        if epilogue.col_offset is not None:
            centred = centred - epilogue.col_offset
        y = y + own.own_factor * (centred * epilogue.col_scale)
    return finish(y, sink, quantize)


def _quantized(y: Tensor, to: Output, quantize: Callable[..., Tensor]) -> Tensor:
    """Rows of one width, or of several: in buckets (a scale per row), or as shifted bytes."""
    axis = -1 if to.scale.numel() == 1 else 1
    if to.widths is None:
        return quantize(y, to.scale, to.zero_point, axis, to.out_bits, to.row_factor)
    if to.position is not None:
        return quantize_pack_bucketed.reference(
            y, to.scale, to.zero_point, 0, to.widths, to.position, to.row_factor
        )
    assert to.shift is not None
    power = torch.exp2(-to.shift.float())
    factor = power if to.row_factor is None else to.row_factor * power
    codes = y.new_empty(y.shape, dtype=torch.uint8)
    for bits in range(1, 9):
        nodes = (to.widths == bits).nonzero().view(-1)
        zeros = to.zero_point[bits - 1 : bits]
        made = fake_quantize.reference(
            y[nodes] * factor[nodes].view(-1, 1), to.scale, zeros, axis, bits
        )
        codes[nodes] = made.to(torch.uint8)
    return codes << to.shift.view(-1, 1)


def _check_spmm(
    edges: Edges, source: Source, own: Own, epilogue: Epilogue, sink: Sink
) -> tuple[Edges, Source, Own, Epilogue, Sink]:
    source = source.checked()
    cols = source.num_cols
    edges = edges.checked(source.packed, "packed", cols)
    rows = edges.num_rows
    own = own.checked(rows, source)
    epilogue, sink = epilogue.checked(rows, cols), sink.checked(rows, cols)
    return edges, source, own, epilogue, sink


@operator(
    _check_spmm,
    lambda edges, source, own, epilogue, sink: finished(
        sink,
        edges.num_rows,
        source.num_cols,
        edges.indices.size(0) / max(edges.num_rows, 1),
    ),
)
def fused_spmm(
    edges: Edges, source: Source, own: Own, epilogue: Epilogue, sink: Sink
) -> list[Tensor]:
    """A neighbour sum, its epilogue, an optional ReLU, and the quantizers that read the result.

    No matrix but the results exists.

    Args:
        edges: R targets.
        source: The rows that are summed.
        own: What a row takes from its target itself.
        epilogue: From int32 sums to float rows.
        sink: What reads them.

    Returns:
        Packed rows per output; the float32 rows ``[R, C]`` alone where there is none.
    """
    return complete(spmm.reference(edges, source), source, own, epilogue, sink)


def _check_gemm(products: list[Product], sink: Sink) -> tuple[list[Product], Sink]:
    if not products:
        raise ShapeError("a sum of products needs at least one product")
    checked: list[Product] = []
    for i, product in enumerate(products):
        checked.append(product.checked(i, checked[0].shape if checked else None))
    sink = sink.checked(*checked[0].shape)
    return checked, sink


def _gemm_results(products: Sequence[Product], sink: Sink) -> list[Result]:
    depth = sum([product.source.num_cols for product in products])
    return finished(sink, *products[0].shape, depth / 4)


@operator(_check_gemm, _gemm_results)
def fused_gemm(products: list[Product], sink: Sink) -> list[Tensor]:
    """A sum of products, each with its epilogue, then as :func:`fused_spmm` goes on.

    Args:
        products: Added from left to right; all have N rows and M columns.
        sink: What reads the sum.

    Returns:
        As :func:`fused_spmm`.
    """
    total: Tensor | None = None
    for product in products:
        y = product.epilogue.apply(gemm.reference(product.source, product.weight))
        total = y if total is None else total + y
    assert total is not None
    return finish(total, sink)


def _check_bucketed(
    source: Mixed, weight: Weight, epilogue: Epilogue, sink: Sink
) -> tuple[Mixed, Weight, Epilogue, Sink]:
    source = source.checked()
    weight = weight.checked(source.num_cols)
    shape = source.order.numel(), weight.w_packed.size(0)
    epilogue, sink = epilogue.checked(*shape), sink.checked(*shape)
    one_per_row(epilogue)
    return source, weight, epilogue, sink


@operator(
    _check_bucketed,
    lambda source, weight, epilogue, sink: finished(
        sink, source.order.size(0), weight.w_packed.size(0), source.num_cols / 4
    ),
)
def fused_gemm_bucketed(
    source: Mixed, weight: Weight, epilogue: Epilogue, sink: Sink
) -> list[Tensor]:
    """A product of rows of several widths, then as :func:`fused_spmm` goes on, in node order.

    Args:
        source: N rows of K columns.
        weight: M rows of K columns.
        epilogue: From int32 products to float rows.
        sink: What reads them.

    Returns:
        As :func:`fused_spmm`.
    """
    codes = unpack_bucketed.reference(source)
    acc = gemm.reference(Source(codes, 8, source.num_cols), weight)
    return finish(epilogue.apply(acc), sink)
