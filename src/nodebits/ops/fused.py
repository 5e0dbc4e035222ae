"""Fused operators: an integer product, its epilogue, and the quantizers that read the result.

Between the packed rows that go in and those that come out only a tile of int32 and float32 exists,
in the cache. Bit for bit the result of the operators one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes
from nodebits.ops import checks, reference
from nodebits.ops.cpu import check_neighbor_sum, check_product, kernels_for, register

_Finish = tuple[bool, list[Tensor], list[Tensor], list[int], list[Tensor | None]]


def _check_finish(
    rows: int,
    cols: int,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
) -> _Finish:
    if not len(scale) == len(zero_point) == len(out_bits) == len(row_factor):
        raise ShapeError(
            "scale, zero_point, out_bits and row_factor need one entry per result, got "
            f"{len(scale)}, {len(zero_point)}, {len(out_bits)} and {len(row_factor)}"
        )
    scales, zeros, factors = [], [], []
    for s, z, bits, factor in zip(scale, zero_point, out_bits, row_factor, strict=True):
        check_bits(bits, "out_bits")
        width = 1 if s.numel() == 1 else cols
        for name, t in (("scale", s), ("zero_point", z)):
            if t.dtype != torch.float32 or t.numel() not in (1, width):
                raise ShapeError(
                    f"{name} of a result must be float32 [{cols}] or one value, got {t.dtype} "
                    f"{list(t.shape)}"
                )
        scales.append(s.detach().reshape(-1).contiguous())
        zeros.append(z.detach().reshape(-1).expand(width).contiguous())
        if factor is not None:
            factor = checks.tensor(factor, "row_factor", torch.float32, 1)
            if factor.numel() != rows:
                raise ShapeError(f"row_factor has {factor.numel()} values for {rows} rows")
        factors.append(factor)
    return relu, scales, zeros, out_bits, factors


def _outputs(rows: int, cols: int, like: Tensor, out_bits: list[int]) -> list[Tensor]:
    if not out_bits:
        return [like.new_empty((rows, cols), dtype=torch.float32)]
    return [like.new_empty((rows, row_bytes(cols, bits)), dtype=torch.uint8) for bits in out_bits]


def _per_row(t: Tensor | None, name: str, rows: int) -> Tensor | None:
    if t is None:
        return None
    t = checks.tensor(t, name, torch.int32, 1)
    if t.numel() != rows:
        raise ShapeError(f"{name} has {t.numel()} values for {rows} rows")
    return t


@register
def fused_spmm(
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
) -> list[Tensor]:
    """See ``nodebits.ops.fused_spmm``."""
    indptr, indices, packed, weight, blocks = check_neighbor_sum(
        indptr, indices, packed, bits, num_cols, weight, blocks
    )
    rows = indptr.numel() - 1
    acc_scale = _per_row(acc_scale, "acc_scale", rows)
    acc_offset = _per_row(acc_offset, "acc_offset", rows)
    col_scale, col_offset, bias = checks.epilogue_columns(col_scale, col_offset, bias, num_cols)
    row_offset, row_scale, heads = checks.row_factors((rows, num_cols), row_offset, row_scale)
    if (own is None) != (own_factor is None):
        raise ShapeError("own and own_factor come together")
    if own is not None and own_factor is not None:
        own = checks.packed_rows(own, "own", bits, num_cols)
        if own.size(0) != rows:
            raise ShapeError(f"own has {own.size(0)} rows, the sum {rows}")
        if own_factor.dtype != torch.float32 or own_factor.numel() != 1:
            raise ShapeError("own_factor must be one float32 value")
        own_factor = own_factor.detach().reshape(1)
    finish = _check_finish(rows, num_cols, relu, scale, zero_point, out_bits, row_factor)
    tensors = (acc_scale, acc_offset, col_scale, col_offset, row_offset, row_scale, bias, own)
    checks.same_device(
        ("packed", packed),
        *(("an argument", t) for t in (*tensors, own_factor, *scale, *zero_point, *row_factor)),
    )
    kernels = kernels_for(packed)
    if kernels is None:
        y = reference.fused_spmm(
            indptr, indices, packed, bits, num_cols, weight, *tensors, own_factor
        )
        return reference.finish(y, *finish)
    out = _outputs(rows, num_cols, packed, out_bits)
    threads = torch.get_num_threads()
    factor = 0.0 if own_factor is None else float(own_factor)
    kernels.fused_spmm(
        indptr, indices, packed, bits, num_cols, weight, blocks, *tensors, factor, heads, *finish,
        out, threads,
    )  # fmt: skip
    return out


@register
def fused_gemm(
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
) -> list[Tensor]:
    """See ``nodebits.ops.fused_gemm``."""
    per_product: tuple[Sequence[object], ...] = (
        x_packed, x_bits, num_cols, w_packed, w_bits, midrise, col_scale, col_offset, row_scale,
        bias,
    )  # fmt: skip
    if not x_packed or any(len(part) != len(x_packed) for part in per_product):
        raise ShapeError("every argument of a product needs one entry per product")
    x, w, col_s, col_o, row_s, biases = [], [], [], [], [], []
    rows, cols = x_packed[0].size(0), w_packed[0].size(0)
    for i in range(len(x_packed)):
        checked = check_product(
            x_packed[i], x_bits[i], num_cols[i], w_packed[i], w_bits[i], midrise[i]
        )
        x.append(checked[0])
        w.append(checked[1])
        if checked[0].size(0) != rows or checked[1].size(0) != cols:
            raise ShapeError(
                f"product {i} has {checked[0].size(0)} x {checked[1].size(0)} results, the first "
                f"{rows} x {cols}"
            )
        columns = checks.epilogue_columns(col_scale[i], col_offset[i], bias[i], cols)
        col_s.append(columns[0])
        col_o.append(columns[1])
        biases.append(columns[2])
        row = row_scale[i]
        if row is not None:
            row = checks.row_factors((rows, cols), None, row)[1]
            assert row is not None
            if row.size(1) != 1:
                raise ShapeError("row_scale of a product has one value per row")
        row_s.append(row)
    finish = _check_finish(rows, cols, relu, scale, zero_point, out_bits, row_factor)
    parts = (*x, *w, *col_s, *col_o, *row_s, *biases, *scale, *zero_point, *row_factor)
    checks.same_device(("x_packed", x[0]), *(("an argument", t) for t in parts))
    products = (x, x_bits, num_cols, w, w_bits, midrise, col_s, col_o, row_s, biases)
    kernels = kernels_for(x[0])
    if kernels is None:
        return reference.finish(reference.fused_gemm(*products), *finish)
    out = _outputs(rows, cols, x[0], out_bits)
    kernels.fused_gemm(*products, *finish, out, torch.get_num_threads())
    return out
