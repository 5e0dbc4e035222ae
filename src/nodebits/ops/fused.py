"""Fused operators: an integer product, its epilogue, and the quantizers that read the result.

Between the packed rows that go in and those that come out only a tile of int32 and float32 exists,
in the cache. Bit for bit the result of the operators one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits.core.affine import MIN_SCALE, check_bits
from nodebits.core.errors import ShapeError
from nodebits.core.packing import row_bytes
from nodebits.ops import checks, reference
from nodebits.ops.cpu import check_neighbor_sum, check_product, kernels_for, register
from nodebits.ops.features import scan_features

_Optional = list[Tensor | None]


class _Finish(NamedTuple):
    """How a fused operator goes on; the last arguments of all of them."""

    relu: bool
    scale: list[Tensor]
    zero_point: list[Tensor]
    out_bits: list[int]
    row_factor: _Optional
    widths: _Optional
    position: _Optional
    shift: _Optional

    def tensors(self) -> Iterator[tuple[str, Tensor | None]]:
        """All tensors, for the check of their device."""
        for part in (self.scale, self.zero_point, self.row_factor, *self[5:]):
            yield from (("an argument", t) for t in part)


def _check_finish(rows: int, cols: int, *given: Any) -> _Finish:
    finish = _Finish(*given)
    n = len(finish.out_bits)
    # No entries stand for None in all.
    finish = _Finish(*finish[:5], *(part or [None] * n for part in finish[5:]))
    if any(len(part) != n for part in finish[1:]):
        raise ShapeError(
            "scale, zero_point, out_bits and row_factor (and widths, position and shift, where "
            f"there are some) need one entry per result, got {[len(p) for p in finish[1:]]}"
        )
    scales, zeros, factors = [], [], []
    widths, positions, shifts = [], [], []
    for s, z, bits, factor, width, position, shift in zip(*finish[1:], strict=True):
        check_bits(bits, "out_bits")
        per_row = position is not None
        if (width is None and (per_row or shift is not None)) or (
            width is not None and per_row == (shift is not None)
        ):
            raise ShapeError("rows of several widths have widths and either a position or a shift")
        length = rows if per_row else 1 if s.numel() == 1 else cols
        zero_points = 8 if width is not None else length
        for name, t, least, most in (
            ("scale", s, length, length),
            ("zero_point", z, 8 if width is not None else 1, zero_points),
        ):
            if t.dtype != torch.float32 or t.numel() not in (least, most):
                raise ShapeError(
                    f"{name} of a result must be float32 [{most}]"
                    f"{'' if least == most else ' or one value'}, got {t.dtype} {list(t.shape)}"
                )
        scales.append(s.detach().reshape(-1).contiguous())
        zeros.append(z.detach().reshape(-1).expand(zero_points).contiguous())
        factors.append(_of_rows(factor, "row_factor", torch.float32, rows))
        widths.append(_of_rows(width, "widths", torch.uint8, rows))
        positions.append(_of_rows(position, "position", torch.int32, rows))
        shifts.append(_of_rows(shift, "shift", torch.uint8, rows))
    made = (scales, zeros, finish.out_bits, factors, widths, positions, shifts)
    return _Finish(finish.relu, *made)


def _outputs(
    rows: int, cols: int, like: Tensor, finish: _Finish, kernels: Any, work: float
) -> list[Tensor]:
    """Uninitialised results; ``work`` is what a row takes: its edges, or a fourth of its columns.

    Large ones that take long to compute lie on pages of their own, which leave the process with
    them: a heap would keep them, and a forward on a large graph would hold all it ever held. Where
    there is less to do, pages that the system clears anew in every call would be felt.
    """
    pages = work >= _WORTH_PAGES

    def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if pages and size >= _OWN_PAGES:
            memory = kernels.fresh_bytes(size)
            if memory is not None:
                return from_dlpack(memory).view(dtype).view(shape)
        return like.new_empty(shape, dtype=dtype)

    if not finish.out_bits:
        return [fresh((rows, cols), torch.float32)]
    out = []
    for bits, widths, position in zip(finish.out_bits, finish.widths, finish.position, strict=True):
        if widths is None:
            out.append(fresh((rows, row_bytes(cols, bits)), torch.uint8))
        elif position is None:
            out.append(fresh((rows, cols), torch.uint8))
        else:
            out.append(fresh((kernels.bucket_bytes(widths, cols),), torch.uint8))
    return out


_OWN_PAGES = 4 << 20  # bytes
_WORTH_PAGES = 64  # edges of a row, or columns of a product / 4


def _of_rows(t: Tensor | None, name: str, dtype: torch.dtype, rows: int) -> Tensor | None:
    return None if t is None else checks.of_rows(t, name, dtype, rows)


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
    row_factor: _Optional,
    widths: _Optional,
    position: _Optional,
    shift: _Optional,
) -> list[Tensor]:
    """See ``nodebits.ops.fused_spmm``."""
    indptr, indices, packed, weight, blocks = check_neighbor_sum(
        indptr, indices, packed, bits, num_cols, weight, blocks
    )
    rows = indptr.numel() - 1
    acc_scale = _of_rows(acc_scale, "acc_scale", torch.int32, rows)
    acc_offset = _of_rows(acc_offset, "acc_offset", torch.int32, rows)
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
    finish = _check_finish(
        rows, num_cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift
    )
    tensors = (acc_scale, acc_offset, col_scale, col_offset, row_offset, row_scale, bias, own)
    checks.same_device(
        ("packed", packed),
        *(("an argument", t) for t in (*tensors, own_factor)),
        *finish.tensors(),
    )
    kernels = kernels_for(packed)
    if kernels is None:
        y = reference.fused_spmm(
            indptr, indices, packed, bits, num_cols, weight, *tensors, own_factor
        )
        return reference.finish(y, *finish)
    out = _outputs(rows, num_cols, packed, finish, kernels, indices.numel() / max(rows, 1))
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
    row_factor: _Optional,
    widths: _Optional,
    position: _Optional,
    shift: _Optional,
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
    finish = _check_finish(
        rows, cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift
    )
    parts = (*x, *w, *col_s, *col_o, *row_s, *biases)
    checks.same_device(("x_packed", x[0]), *(("an argument", t) for t in parts), *finish.tensors())
    products = (x, x_bits, num_cols, w, w_bits, midrise, col_s, col_o, row_s, biases)
    kernels = kernels_for(x[0])
    if kernels is None:
        return reference.finish(reference.fused_gemm(*products), *finish)
    out = _outputs(rows, cols, x[0], finish, kernels, sum(num_cols) / 4)
    kernels.fused_gemm(*products, *finish, out, torch.get_num_threads())
    return out


@register
def fused_gemm_bucketed(
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
    row_factor: _Optional,
    widths: _Optional,
    position: _Optional,
    shift: _Optional,
) -> list[Tensor]:
    """See ``nodebits.ops.fused_gemm_bucketed``."""
    order = checks.buckets(order, counts)
    packed = checks.bucketed(packed, counts, num_cols)
    w_packed = checks.weight_rows(w_packed, w_bits, num_cols, midrise)
    rows, cols = order.numel(), w_packed.size(0)
    col_scale, col_offset, bias = checks.epilogue_columns(col_scale, col_offset, bias, cols)
    row_offset, row_scale, heads = checks.row_factors((rows, cols), row_offset, row_scale)
    if heads != 1:
        raise ShapeError("row_offset and row_scale of a product have one value per row")
    finish = _check_finish(
        rows, cols, relu, scale, zero_point, out_bits, row_factor, widths, position, shift
    )
    epilogue = (col_scale, col_offset, row_offset, row_scale, bias)
    checks.same_device(
        ("packed", packed),
        *(("an argument", t) for t in (order, w_packed, *epilogue)),
        *finish.tensors(),
    )
    product = (packed, order, counts, num_cols, w_packed, w_bits, midrise, *epilogue)
    kernels = kernels_for(packed)
    if kernels is None:
        return reference.finish(reference.fused_gemm_bucketed(*product), *finish)
    out = _outputs(rows, cols, packed, finish, kernels, num_cols / 4)
    kernels.fused_gemm_bucketed(*product, *finish, out, torch.get_num_threads())
    return out


class FeatureProduct(NamedTuple):
    """What :func:`fused_gemm_features` returns.

    Attributes:
        results: As of the fused operators; worth nothing where a flag speaks against them.
        finite: Whether all values are.
        negative: Whether a value is below zero, for which unsigned codes have other scales.
    """

    results: list[Tensor]
    finite: bool
    negative: bool


def fused_gemm_features(
    x: Tensor,
    x_bits: int,
    symmetric: bool,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    bias: Tensor | None,
    *given: Any,
) -> FeatureProduct:
    """:func:`nodebits.ops.fused_gemm` of raw features, packed a few rows at a time.

    Every row has the scale of :func:`nodebits.ops.features.scan_features`. No operator, since what
    it returns depends on the values.

    Args:
        x: float32 ``[N, K]``.
        x_bits: Width of the codes, 1 to 8.
        symmetric: Codes around ``2^(x_bits-1)`` instead of unsigned ones.
        w_packed: As in ``fused_gemm``; likewise the next two.
        w_bits: See ``fused_gemm``.
        midrise: See ``fused_gemm``.
        col_scale: As in ``fused_gemm``; likewise the next two.
        col_offset: See ``fused_gemm``.
        bias: See ``fused_gemm``.
        *given: ReLU and quantizers, as in ``fused_gemm``.
    """
    check_bits(x_bits, "x_bits")
    x = checks.tensor(x, "x", torch.float32, 2)
    rows, depth = x.shape
    w_packed = checks.weight_rows(w_packed, w_bits, depth, midrise)
    cols = w_packed.size(0)
    epilogue = checks.epilogue_columns(col_scale, col_offset, bias, cols)
    finish = _check_finish(rows, cols, *given)
    checks.same_device(
        ("x", x), *(("an argument", t) for t in (w_packed, *epilogue)), *finish.tensors()
    )
    kernels = kernels_for(x)
    if kernels is None:
        scan = scan_features(x, x_bits, symmetric, 0.0)
        assert scan.packed is not None
        acc = reference.gemm(scan.packed, x_bits, depth, w_packed, w_bits, midrise)
        scale, offset, bias = epilogue
        y = reference.rescale(acc, scale, offset, None, scan.scale.view(-1, 1), bias)
        return FeatureProduct(reference.finish(y, *finish), scan.finite, scan.negative)
    out = _outputs(rows, cols, x, finish, kernels, depth / 4)
    negative, finite = kernels.fused_gemm_features(
        x, x_bits, symmetric, MIN_SCALE, x.new_empty(rows), w_packed, w_bits, midrise, *epilogue,
        *finish, out, torch.get_num_threads(),
    )  # fmt: skip
    return FeatureProduct(out, finite, negative)
