"""Implementations of the operators: checks, then compiled kernels (CPU) or the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import NodeIndexError, ShapeError, raise_memory_error
from nodebits.core.indices import check_within
from nodebits.core.packing import pack as reference_pack
from nodebits.core.packing import row_bytes
from nodebits.core.packing import unpack as reference_unpack
from nodebits.core.places import check_bucket_shifts, check_places
from nodebits.ops import checks, reference
from nodebits.ops.backend import kernels_for
from nodebits.ops.blocks import known_blocks
from nodebits.ops.schema import LIBRARY

_INT32_MAX = 2**31 - 1
_Operator = TypeVar("_Operator", bound=Callable[..., Any])


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}


def register(function: _Operator) -> _Operator:
    """Decorator: ``function`` implements the operator of its name."""
    name = function.__name__
    given = getattr(torch.ops.nodebits, name).default._schema.arguments
    # torch passes None where a tensor is required, too.
    single = [(i, a.name) for i, a in enumerate(given) if str(a.type) == "Tensor"]
    several = [(i, a.name) for i, a in enumerate(given) if str(a.type) == "List[Tensor]"]

    @wraps(function)
    def implementation(*args: Any, **keywords: Any) -> Any:
        for at, argument in single:
            if args[at] is None:
                raise ShapeError(f"{argument} of {name} is None: it must be a tensor")
        for at, argument in several:
            if any(t is None for t in args[at]):
                raise ShapeError(f"{argument} of {name} holds None: all must be tensors")
        try:
            return function(*args, **keywords)
        except (RuntimeError, MemoryError) as error:
            raise_memory_error(error)
            raise

    IMPLEMENTATIONS[name] = implementation
    # One implementation for every device: it looks at the tensor itself.
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    return function


@register
def pack(codes: Tensor, bits: int) -> Tensor:
    """See ``nodebits.ops.pack``."""
    check_bits(bits)
    codes = checks.tensor(codes, "codes", torch.uint8, 2)
    kernels = kernels_for(codes)
    if kernels is None:
        return reference_pack(codes, bits)
    out = codes.new_empty((codes.size(0), row_bytes(codes.size(1), bits)))
    kernels.pack(codes, bits, out, torch.get_num_threads())
    return out


@register
def unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """See ``nodebits.ops.unpack``."""
    packed = checks.packed_rows(packed, "packed", bits, num_cols)
    kernels = kernels_for(packed)
    if kernels is None:
        return reference_unpack(packed, bits, num_cols)
    out = packed.new_empty((packed.size(0), num_cols))
    kernels.unpack(packed, bits, out, torch.get_num_threads())
    return out


def _affine(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    check_bits(bits)
    x = checks.tensor(x, "x", torch.float32, 2)
    checks.same_device(("x", x), ("scale", scale), ("zero_point", zero_point))
    return (
        x,
        checks.parameter(scale, "scale", axis, x, may_be_one=axis == -1),
        checks.parameter(zero_point, "zero_point", axis, x, may_be_one=True),
    )


def _row_factor(row_factor: Tensor | None, x: Tensor) -> Tensor | None:
    if row_factor is None:
        return None
    row_factor = checks.tensor(row_factor, "row_factor", torch.float32, 1)
    checks.same_device(("x", x), ("row_factor", row_factor))
    if row_factor.numel() != x.size(0):
        raise ShapeError(f"row_factor has {row_factor.numel()} values for {x.size(0)} rows of x")
    return row_factor


@register
def quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> Tensor:
    """See ``nodebits.ops.quantize_pack``."""
    x, scale, zero_point = _affine(x, scale, zero_point, axis, bits)
    row_factor = _row_factor(row_factor, x)
    kernels = kernels_for(x)
    if kernels is None:
        return reference.quantize_pack(x, scale, zero_point, axis, bits, row_factor)
    out = x.new_empty((x.size(0), row_bytes(x.size(1), bits)), dtype=torch.uint8)
    threads = torch.get_num_threads()
    kernels.quantize_pack(x, scale, zero_point, axis, bits, row_factor, out, threads)
    return out


@register
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """See ``nodebits.ops.fake_quantize``."""
    x, scale, zero_point = _affine(x, scale, zero_point, axis, bits)
    kernels = kernels_for(x)
    if kernels is None:
        return reference.fake_quantize(x, scale, zero_point, axis, bits)
    out = torch.empty_like(x)
    kernels.fake_quantize(x, scale, zero_point, axis, bits, out, torch.get_num_threads())
    return out


@register
def fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``nodebits.ops.fake_quantize_backward``."""
    x, flat_scale, flat_zero = _affine(x, scale, zero_point, axis, bits)
    grad = checks.tensor(grad, "grad", torch.float32, 2)
    if grad.shape != x.shape:
        raise ShapeError(f"grad has shape {list(grad.shape)} but x has {list(x.shape)}")
    if mode not in (0, 1, 2):
        raise ShapeError(f"mode must be 0 (clip), 1 (pass) or 2 (strict), got {mode}")
    kernels = kernels_for(x)
    if kernels is None:
        grad_x, grad_scale, grad_zero = reference.fake_quantize_backward(
            grad, x, flat_scale, flat_zero, axis, bits, mode
        )
    else:
        grad_x = torch.empty_like(x)
        grad_scale, grad_zero = torch.empty_like(flat_scale), torch.empty_like(flat_zero)
        kernels.fake_quantize_backward(
            grad,
            x,
            flat_scale,
            flat_zero,
            axis,
            bits,
            mode,
            grad_x,
            grad_scale,
            grad_zero,
            torch.get_num_threads(),
        )
    if zero_point.numel() == 1 and grad_zero.numel() != 1:
        grad_zero = grad_zero.sum()
    return grad_x, grad_scale.reshape(scale.shape), grad_zero.reshape(zero_point.shape)


def check_product(
    x_packed: Tensor, x_bits: int, num_cols: int, w_packed: Tensor, w_bits: int, midrise: bool
) -> tuple[Tensor, Tensor]:
    """Checks the factors of an integer product and returns them contiguous."""
    x_packed = checks.packed_rows(x_packed, "x_packed", x_bits, num_cols)
    w_packed = checks.weight_rows(w_packed, w_bits, num_cols, midrise)
    checks.same_device(("x_packed", x_packed), ("w_packed", w_packed))
    return x_packed, w_packed


@register
def gemm(
    x_packed: Tensor,
    x_bits: int,
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool = False,
) -> Tensor:
    """See ``nodebits.ops.gemm``."""
    x_packed, w_packed = check_product(x_packed, x_bits, num_cols, w_packed, w_bits, midrise)
    kernels = kernels_for(x_packed)
    if kernels is None:
        return reference.gemm(x_packed, x_bits, num_cols, w_packed, w_bits, midrise)
    out = x_packed.new_empty((x_packed.size(0), w_packed.size(0)), dtype=torch.int32)
    threads = torch.get_num_threads()
    kernels.gemm(x_packed, x_bits, num_cols, w_packed, w_bits, midrise, out, threads)
    return out


@register
def quantize_pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None = None,
) -> Tensor:
    """See ``nodebits.ops.quantize_pack_bucketed``."""
    return pack_bucketed(x, scale, zero_point, axis, widths, position, row_factor, False)[0]


def pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None,
    look: bool,
) -> tuple[Tensor, bool]:
    """The operator's rows, and whether all values are finite (True unless told to ``look``)."""
    x = checks.tensor(x, "x", torch.float32, 2)
    scale = checks.parameter(scale, "scale", axis, x, may_be_one=axis == -1)
    zero_point = checks.tensor(zero_point, "zero_point", torch.float32, 1)
    if zero_point.numel() != 8:
        raise ShapeError(f"zero_point has {zero_point.numel()} values, expected 8, by width")
    widths = checks.of_rows(widths, "widths", torch.uint8, x.size(0))
    position = checks.of_rows(position, "position", torch.int32, x.size(0))
    check_places(widths, position)
    row_factor = _row_factor(row_factor, x)
    given = (scale, zero_point, widths, position, row_factor)
    checks.same_device(("x", x), *(("an argument", t) for t in given))
    kernels = kernels_for(x)
    if kernels is None:
        rows = reference.quantize_pack_bucketed(
            x, scale, zero_point, axis, widths, position, row_factor
        )
        return rows, not look or bool(x.isfinite().all())
    out = x.new_empty((kernels.bucket_bytes(widths, x.size(1)),), dtype=torch.uint8)
    arguments = (
        x, scale, zero_point, axis, widths, position, row_factor, out, torch.get_num_threads()
    )  # fmt: skip
    if look:
        return out, bool(kernels.quantize_pack_checked(*arguments))
    kernels.quantize_pack_bucketed(*arguments)
    return out, True


@register
def unpack_bucketed(
    packed: Tensor, order: Tensor, counts: list[int], num_cols: int, shift: Tensor | None = None
) -> Tensor:
    """See ``nodebits.ops.unpack_bucketed``."""
    order = checks.buckets(order, counts)
    packed = checks.bucketed(packed, counts, num_cols)
    checks.same_device(("packed", packed), ("order", order), ("shift", shift))
    if shift is not None:
        shift = checks.tensor(shift, "shift", torch.uint8, 1)
        if shift.numel() != order.numel():
            raise ShapeError(f"shift has {shift.numel()} values for {order.numel()} rows")
        check_bucket_shifts(order, counts, shift)
    kernels = kernels_for(packed)
    if kernels is None:
        return reference.unpack_bucketed(packed, order, counts, num_cols, shift)
    out = packed.new_empty((order.numel(), num_cols))
    kernels.unpack_bucketed(packed, order, counts, shift, out, torch.get_num_threads())
    return out


@register
def nearest_group(extent: Tensor, limits: Tensor) -> Tensor:
    """See ``nodebits.ops.nearest_group``."""
    extent = checks.tensor(extent, "extent", torch.float32, 1)
    limits = checks.tensor(limits, "limits", torch.float32, 1)
    checks.same_device(("extent", extent), ("limits", limits))
    if limits.numel() == 0:
        raise ShapeError("limits is empty: there must be at least one group")
    checks.ascending(limits, "limits")
    kernels = kernels_for(extent)
    if kernels is None:
        return reference.nearest_group(extent, limits)
    out = torch.empty_like(extent, dtype=torch.int32)
    kernels.nearest_group(extent, limits, out, torch.get_num_threads())
    return out


def check_neighbor_sum(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Checks the arguments of a neighbour sum and returns the tensors contiguous."""
    indptr, indices = checks.csr(indptr, indices)
    packed = checks.packed_rows(packed, "packed", bits, num_cols)
    checks.same_device(("indptr", indptr), ("packed", packed), ("weight", weight))
    checks.has_rows(indices, packed, "packed")
    if weight is not None:
        weight = checks.tensor(weight, "weight", torch.uint8, 2)
        if weight.size(0) != indices.numel() or not weight.size(1) or num_cols % weight.size(1):
            raise ShapeError(
                f"weight must be [{indices.numel()}, H] with H a divisor of {num_cols} columns, "
                f"got {list(weight.shape)}"
            )
    if blocks is not None:
        blocks = known_blocks(blocks, indptr, indices, packed.size(0))
    return indptr, indices, packed, weight, blocks


def _neighbor_sum(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    blocks: Tensor | None = None,
) -> Tensor:
    indptr, indices, packed, weight, blocks = check_neighbor_sum(
        indptr, indices, packed, bits, num_cols, weight, blocks
    )
    kernels = kernels_for(packed)
    if kernels is None:
        if weight is None:
            return reference.spmm(indptr, indices, packed, bits, num_cols)
        return reference.spmm_weighted(indptr, indices, packed, bits, num_cols, weight)
    out = packed.new_empty((indptr.numel() - 1, num_cols), dtype=torch.int32)
    threads = torch.get_num_threads()
    kernels.spmm(indptr, indices, packed, bits, num_cols, weight, blocks, out, threads)
    return out


@register
def spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    blocks: Tensor | None = None,
) -> Tensor:
    """See ``nodebits.ops.spmm``."""
    return _neighbor_sum(indptr, indices, packed, bits, num_cols, None, blocks)


@register
def spmm_weighted(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, weight: Tensor
) -> Tensor:
    """See ``nodebits.ops.spmm_weighted``."""
    return _neighbor_sum(indptr, indices, packed, bits, num_cols, weight)


@register
def rescale(
    acc: Tensor,
    col_scale: Tensor,
    col_offset: Tensor | None = None,
    row_offset: Tensor | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """See ``nodebits.ops.rescale``."""
    acc = checks.tensor(acc, "acc", torch.int32, 2)
    scale, offset, bias = checks.epilogue_columns(col_scale, col_offset, bias, acc.size(1))
    row_offset, row_scale, heads = checks.row_factors(
        (acc.size(0), acc.size(1)), row_offset, row_scale
    )
    checks.same_device(
        ("acc", acc),
        ("col_scale", scale),
        ("col_offset", offset),
        ("row_offset", row_offset),
        ("row_scale", row_scale),
        ("bias", bias),
    )
    kernels = kernels_for(acc)
    if kernels is None:
        return reference.rescale(acc, scale, offset, row_offset, row_scale, bias)
    out = torch.empty_like(acc, dtype=torch.float32)
    threads = torch.get_num_threads()
    kernels.rescale(acc, scale, offset, row_offset, row_scale, bias, heads, out, threads)
    return out


@register
def propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: Sequence[int],
    coefficients: Sequence[float],
    laplacian: bool,
    teleport: float,
    blocks: Tensor | None = None,
) -> Tensor:
    """See ``nodebits.ops.propagate``."""
    indptr, indices = checks.csr(indptr, indices)
    x = checks.tensor(x, "x", torch.float32, 2)
    num_rows = indptr.numel() - 1
    if x.size(0) != num_rows:
        raise ShapeError(f"x has {x.size(0)} rows for a square adjacency of {num_rows}")
    checks.has_rows(indices, x, "x")
    if blocks is not None:
        blocks = known_blocks(blocks, indptr, indices, num_rows)
    if factor is not None:
        factor = checks.tensor(factor, "factor", torch.float32, 1)
        if factor.numel() != num_rows:
            raise ShapeError(f"factor has {factor.numel()} values for {num_rows} rows")
    checks.same_device(("x", x), ("indptr", indptr), ("scale", scale), ("factor", factor))
    sums = sum(2 if c != 0.0 else 1 for c in coefficients)
    if len(bits) != sums or not sums:
        raise ShapeError(
            f"bits has {len(bits)} entries for {sums} neighbour sums: one per step, and one more "
            "for every step with a coefficient"
        )
    for width in bits:
        check_bits(width)
    scale, zero_point, made_with = (
        checks.tensor(t, name, torch.float32, 2)
        for name, t in (("scale", scale), ("zero_point", zero_point), ("made_with", made_with))
    )
    for name, t in (("scale", scale), ("zero_point", zero_point), ("made_with", made_with)):
        if list(t.shape) != [sums, x.size(1)]:
            raise ShapeError(f"{name} must be [{sums}, {x.size(1)}], got {list(t.shape)}")
    kernels = kernels_for(x)
    arguments = (indptr, indices, x, factor, scale, zero_point, made_with, list(bits))
    if kernels is None:
        return reference.propagate(*arguments, coefficients, laplacian, teleport)
    out = torch.empty_like(x)
    threads = torch.get_num_threads()
    options = (list(coefficients), laplacian, teleport, blocks)
    kernels.propagate(*arguments, *options, out, threads)
    return out


@register
def edge_softmax(
    indptr: Tensor,
    indices: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    bits: int,
) -> tuple[Tensor, Tensor]:
    """See ``nodebits.ops.edge_softmax``."""
    check_bits(bits)
    indptr, indices = checks.csr(indptr, indices)
    score_src = checks.tensor(score_src, "score_src", torch.float32, 2)
    score_dst = checks.tensor(score_dst, "score_dst", torch.float32, 2)
    checks.same_device(("indptr", indptr), ("score_src", score_src), ("score_dst", score_dst))
    checks.has_rows(indices, score_src, "score_src")
    num_rows, heads = indptr.numel() - 1, score_src.size(1)
    if list(score_dst.shape) != [num_rows, heads]:
        raise ShapeError(f"score_dst must be [{num_rows}, {heads}], got {list(score_dst.shape)}")
    kernels = kernels_for(score_src)
    if kernels is None:
        return reference.edge_softmax(indptr, indices, score_src, score_dst, negative_slope, bits)
    codes = score_src.new_empty((indices.numel(), heads), dtype=torch.uint8)
    row_sum = score_src.new_empty((num_rows, heads), dtype=torch.int32)
    threads = torch.get_num_threads()
    kernels.edge_softmax(
        indptr, indices, score_src, score_dst, negative_slope, bits, codes, row_sum, threads
    )
    return codes, row_sum


def _first_outside(values: Tensor, limit: int) -> int:
    kernels = kernels_for(values)
    if kernels is not None:
        return int(kernels.first_outside(values, limit, torch.get_num_threads()))
    bad = ((values < 0) | (values >= limit)).nonzero()
    return int(bad[0]) if bad.numel() else -1


def check_indices(values: Tensor, limit: int, name: str) -> None:
    """Raises NodeIndexError, naming the first bad edge, unless all values are in [0, limit)."""
    at = _first_outside(values, limit)
    if at >= 0:
        raise NodeIndexError(f"{name}[{at}] is {int(values[at])}, outside [0, {limit})")


@register
def coo_to_csr(row: Tensor, col: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """See ``nodebits.ops.coo_to_csr``."""
    row = checks.tensor(row, "row", torch.int64, 1)
    col = checks.tensor(col, "col", torch.int64, 1)
    checks.same_device(("row", row), ("col", col))
    if row.shape != col.shape or num_rows < 0:
        raise ShapeError(
            f"row and col need one length and num_rows >= 0, got {row.numel()}, {col.numel()}, "
            f"{num_rows}"
        )
    check_indices(row, num_rows, "row")
    check_indices(col, _INT32_MAX, "col")
    kernels = kernels_for(row)
    if kernels is None:
        return reference.coo_to_csr(row, col, num_rows)
    indptr, perm = row.new_empty(num_rows + 1), torch.empty_like(row)
    indices = torch.empty_like(col, dtype=torch.int32)
    kernels.coo_to_csr(row, col, num_rows, indptr, indices, perm, torch.get_num_threads())
    return indptr, indices, perm


def validate_csr(indptr: Tensor, indices: Tensor, num_cols_nodes: int) -> None:
    """Checks a CSR structure once, so that the operators may trust its indices.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``.
        num_cols_nodes: Number of source nodes; every index must be below it.

    Raises:
        ShapeError: If a dtype or dimension is wrong.
        GraphError: If ``indptr`` does not start at 0, decreases, or does not end at ``E``.
        NodeIndexError: If an index is out of range.
    """
    indptr, indices = checks.csr(indptr, indices)
    reference.check_indptr(indptr, indices.numel())
    check_within(indices, num_cols_nodes, "indices", "the table")
