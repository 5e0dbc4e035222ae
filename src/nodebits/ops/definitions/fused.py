"""Fused operators: an integer product, its epilogue, and the quantizers that read the result.

Between the packed rows that go in and those that come out only a tile of int32 and float32 exists,
in the cache. Bit for bit the result of the operators one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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


def finished_rows(edges: Edges, source: Source, sink: Sink) -> list[Result]:
    """What a sink makes of a row per target."""
    rows = edges.num_rows
    return finished(sink, rows, source.num_cols, edges.indices.size(0) / max(rows, 1))


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


class FusedSpmm(NamedTuple):
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

    edges: Edges
    source: Source
    own: Own
    epilogue: Epilogue
    sink: Sink

    def checked(self) -> FusedSpmm:
        source = self.source.checked()
        edges = self.edges.checked(source.packed, "packed", source.num_cols)
        shape = edges.num_rows, source.num_cols
        own = self.own.checked(edges.num_rows, source)
        return FusedSpmm(
            edges, source, own, self.epilogue.checked(*shape), self.sink.checked(*shape)
        )

    def results(self) -> list[Result]:
        return finished_rows(self.edges, self.source, self.sink)

    def compute(self) -> list[Tensor]:
        acc = spmm.reference(self.edges, self.source)
        return complete(acc, self.source, self.own, self.epilogue, self.sink)


fused_spmm = operator(FusedSpmm)


class FusedGemm(NamedTuple):
    """A sum of products, each with its epilogue, then as :func:`fused_spmm` goes on.

    Args:
        products: Added from left to right; all have N rows and M columns.
        sink: What reads the sum.

    Returns:
        As :func:`fused_spmm`.
    """

    products: list[Product]
    sink: Sink

    def checked(self) -> FusedGemm:
        if not self.products:
            raise ShapeError("a sum of products needs at least one product")
        made: list[Product] = []
        for i, product in enumerate(self.products):
            made.append(product.checked(i, made[0].shape if made else None))
        return FusedGemm(made, self.sink.checked(*made[0].shape))

    def results(self) -> list[Result]:
        depth = sum([product.source.num_cols for product in self.products])
        return finished(self.sink, *self.products[0].shape, depth / 4)

    def compute(self) -> list[Tensor]:
        total: Tensor | None = None
        for product in self.products:
            y = product.epilogue.apply(gemm.reference(product.source, product.weight))
            total = y if total is None else total + y
        assert total is not None
        return finish(total, self.sink)


fused_gemm = operator(FusedGemm)


class FusedGemmBucketed(NamedTuple):
    """A product of rows of several widths, then as :func:`fused_spmm` goes on, in node order.

    Args:
        source: N rows of K columns.
        weight: M rows of K columns.
        epilogue: From int32 products to float rows.
        sink: What reads them.

    Returns:
        As :func:`fused_spmm`.
    """

    source: Mixed
    weight: Weight
    epilogue: Epilogue
    sink: Sink

    def checked(self) -> FusedGemmBucketed:
        source = self.source.checked()
        weight = self.weight.checked(source.num_cols)
        shape = source.order.numel(), weight.w_packed.size(0)
        epilogue = self.epilogue.checked(*shape)
        one_per_row(epilogue)
        return FusedGemmBucketed(source, weight, epilogue, self.sink.checked(*shape))

    def results(self) -> list[Result]:
        source = self.source
        shape = source.order.size(0), self.weight.w_packed.size(0)
        return finished(self.sink, *shape, source.num_cols / 4)

    def compute(self) -> list[Tensor]:
        codes = unpack_bucketed.reference(self.source)
        acc = gemm.reference(Source(codes, 8, self.source.num_cols), self.weight)
        return finish(self.epilogue.apply(acc), self.sink)


fused_gemm_bucketed = operator(FusedGemmBucketed)
