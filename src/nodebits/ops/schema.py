"""Schemas of ``torch.ops.nodebits.*`` and their shapes, for fake tensors and ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes

LIBRARY = torch.library.Library("nodebits", "DEF")

# How a fused operator goes on from its float rows: an affine per column, an activation, then
# quantizers.
_FINISH = (
    "bool relu, Tensor[] scale, Tensor[] zero_point, int[] out_bits, Tensor?[] row_factor, "
    "Tensor?[] widths, Tensor?[] position, Tensor?[] shift, Tensor? post_scale=None, "
    "Tensor? post_shift=None"
)

_SCHEMAS = (
    "pack(Tensor codes, int bits) -> Tensor",
    "unpack(Tensor packed, int bits, SymInt num_cols) -> Tensor",
    "quantize_pack(Tensor x, Tensor scale, Tensor zero_point, int axis, int bits, "
    "Tensor? row_factor=None) -> Tensor",
    "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int axis, int bits) -> Tensor",
    "fake_quantize_backward(Tensor grad, Tensor x, Tensor scale, Tensor zero_point, int axis, "
    "int bits, int mode) -> (Tensor, Tensor, Tensor)",
    "gemm(Tensor x_packed, int x_bits, SymInt num_cols, Tensor w_packed, int w_bits, "
    "bool midrise=False) -> Tensor",
    "quantize_pack_bucketed(Tensor x, Tensor scale, Tensor zero_point, int axis, Tensor widths, "
    "Tensor position, Tensor? row_factor=None) -> Tensor",
    "unpack_bucketed(Tensor packed, Tensor order, int[] counts, SymInt num_cols, "
    "Tensor? shift=None) -> Tensor",
    "nearest_group(Tensor extent, Tensor limits) -> Tensor",
    "spmm(Tensor indptr, Tensor indices, Tensor packed, int bits, SymInt num_cols, "
    "Tensor? blocks=None) -> Tensor",
    "spmm_weighted(Tensor indptr, Tensor indices, Tensor packed, int bits, SymInt num_cols, "
    "Tensor weight) -> Tensor",
    "rescale(Tensor acc, Tensor col_scale, Tensor? col_offset=None, Tensor? row_offset=None, "
    "Tensor? row_scale=None, Tensor? bias=None) -> Tensor",
    "propagate(Tensor indptr, Tensor indices, Tensor x, Tensor? factor, Tensor scale, "
    "Tensor zero_point, Tensor made_with, int[] bits, float[] coefficients, bool laplacian, "
    "float teleport, Tensor? blocks=None) -> Tensor",
    "edge_softmax(Tensor indptr, Tensor indices, Tensor score_src, Tensor score_dst, "
    "float negative_slope, int bits) -> (Tensor, Tensor)",
    "coo_to_csr(Tensor row, Tensor col, SymInt num_rows) -> (Tensor, Tensor, Tensor)",
    "fused_spmm(Tensor indptr, Tensor indices, Tensor packed, int bits, SymInt num_cols, "
    "Tensor? weight, Tensor? blocks, Tensor? acc_scale, Tensor? acc_offset, Tensor col_scale, "
    "Tensor? col_offset, Tensor? row_offset, Tensor? row_scale, Tensor? bias, Tensor? own, "
    "Tensor? own_factor, "
    f"{_FINISH}) -> Tensor[]",
    "fused_gemm(Tensor[] x_packed, int[] x_bits, SymInt[] num_cols, Tensor[] w_packed, "
    "int[] w_bits, bool[] midrise, Tensor[] col_scale, Tensor?[] col_offset, "
    f"Tensor?[] row_scale, Tensor?[] bias, {_FINISH}) -> Tensor[]",
    "fused_gemm_bucketed(Tensor packed, Tensor order, int[] counts, SymInt num_cols, "
    "Tensor w_packed, int w_bits, bool midrise, Tensor col_scale, Tensor? col_offset, "
    f"Tensor? row_offset, Tensor? row_scale, Tensor? bias, {_FINISH}) -> Tensor[]",
)

for _schema in _SCHEMAS:
    LIBRARY.define(_schema)

_Shape = TypeVar("_Shape", bound=Callable[..., Any])


def _fake(name: str) -> Callable[[_Shape], _Shape]:
    """Registers what an operator returns for tensors without data."""

    def register(function: _Shape) -> _Shape:
        @wraps(function)
        def shapes(*args: Any, **keywords: Any) -> Any:
            # With a tensor on "meta" beside real ones torch asks here, and would get memory that
            # nobody filled.
            devices = {
                str(t.device) for t in tree_leaves((args, keywords)) if isinstance(t, Tensor)
            }
            if len(devices) > 1:
                raise ShapeError(
                    f"tensors of {name} are on {' and '.join(sorted(devices))}: move all to one "
                    "device"
                )
            return function(*args, **keywords)

        torch.library.register_fake(f"nodebits::{name}", shapes, lib=LIBRARY)
        return function

    return register


@_fake("pack")
def _pack(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty((codes.size(0), row_bytes(codes.size(1), bits)))


@_fake("unpack")
def _unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    return packed.new_empty((packed.size(0), num_cols))


@_fake("quantize_pack")
def _quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> Tensor:
    return x.new_empty((x.size(0), row_bytes(x.size(1), bits)), dtype=torch.uint8)


@_fake("fake_quantize")
def _fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    return x.new_empty(x.shape)


@_fake("fake_quantize_backward")
def _fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        scale.new_empty(scale.shape),
        zero_point.new_empty(zero_point.shape),
    )


@_fake("gemm")
def _gemm(
    x_packed: Tensor,
    x_bits: int,
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool = False,
) -> Tensor:
    return x_packed.new_empty((x_packed.size(0), w_packed.size(0)), dtype=torch.int32)


@_fake("quantize_pack_bucketed")
def _quantize_pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None = None,
) -> Tensor:
    return _bytes_of_widths(x)


def _bytes_of_widths(like: Tensor) -> Tensor:
    """As many bytes as the widths say."""
    size = torch.library.get_ctx().new_dynamic_size()
    return like.new_empty((size,), dtype=torch.uint8)


@_fake("unpack_bucketed")
def _unpack_bucketed(
    packed: Tensor, order: Tensor, counts: list[int], num_cols: int, shift: Tensor | None = None
) -> Tensor:
    return packed.new_empty((order.size(0), num_cols))


@_fake("nearest_group")
def _nearest_group(extent: Tensor, limits: Tensor) -> Tensor:
    return extent.new_empty(extent.shape, dtype=torch.int32)


@_fake("spmm")
def _spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    blocks: Tensor | None = None,
) -> Tensor:
    return packed.new_empty((indptr.size(0) - 1, num_cols), dtype=torch.int32)


@_fake("spmm_weighted")
def _spmm_weighted(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, weight: Tensor
) -> Tensor:
    return packed.new_empty((indptr.size(0) - 1, num_cols), dtype=torch.int32)


@_fake("rescale")
def _rescale(
    acc: Tensor,
    col_scale: Tensor,
    col_offset: Tensor | None = None,
    row_offset: Tensor | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    return acc.new_empty(acc.shape, dtype=torch.float32)


@_fake("propagate")
def _propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: list[int],
    coefficients: list[float],
    laplacian: bool,
    teleport: float,
    blocks: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape)


@_fake("edge_softmax")
def _edge_softmax(
    indptr: Tensor,
    indices: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    bits: int,
) -> tuple[Tensor, Tensor]:
    heads = score_src.size(1)
    return (
        score_src.new_empty((indices.size(0), heads), dtype=torch.uint8),
        score_src.new_empty((indptr.size(0) - 1, heads), dtype=torch.int32),
    )


@_fake("coo_to_csr")
def _coo_to_csr(row: Tensor, col: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    edges = row.size(0)
    return (
        row.new_empty((num_rows + 1,)),
        row.new_empty((edges,), dtype=torch.int32),
        row.new_empty((edges,)),
    )


def _finished(
    rows: Any,
    cols: Any,
    like: Tensor,
    out_bits: list[int],
    widths: list[Tensor | None],
    position: list[Tensor | None],
) -> list[Tensor]:
    if not out_bits:
        return [like.new_empty((rows, cols), dtype=torch.float32)]
    out = []
    for i, bits in enumerate(out_bits):
        if i >= len(widths) or widths[i] is None:
            out.append(like.new_empty((rows, row_bytes(cols, bits)), dtype=torch.uint8))
        elif position[i] is None:
            out.append(like.new_empty((rows, cols), dtype=torch.uint8))
        else:
            out.append(_bytes_of_widths(like))
    return out


@_fake("fused_spmm")
def _fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None,
    acc_scale: Tensor | None,
    acc_offset: Tensor | None,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    own: Tensor | None,
    own_factor: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: list[Tensor | None],
    position: list[Tensor | None],
    shift: list[Tensor | None],
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    return _finished(indptr.size(0) - 1, num_cols, packed, out_bits, widths, position)


@_fake("fused_gemm")
def _fused_gemm(
    x_packed: list[Tensor],
    x_bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Tensor | None],
    row_scale: list[Tensor | None],
    bias: list[Tensor | None],
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: list[Tensor | None],
    position: list[Tensor | None],
    shift: list[Tensor | None],
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    return _finished(
        x_packed[0].size(0), w_packed[0].size(0), x_packed[0], out_bits, widths, position
    )


@_fake("fused_gemm_bucketed")
def _fused_gemm_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: list[int],
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: list[Tensor | None],
    position: list[Tensor | None],
    shift: list[Tensor | None],
    post_scale: Tensor | None = None,
    post_shift: Tensor | None = None,
) -> list[Tensor]:
    return _finished(order.size(0), w_packed.size(0), packed, out_bits, widths, position)
