"""Rows of one width: packing, quantizing, and the gradients of it."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core import packing
from nodebits.core.affine import check_bits
from nodebits.core.codings.base import coding_of
from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Source


def _check_pack(codes: Tensor, bits: int) -> tuple[Tensor, int]:
    check_bits(bits)
    return checks.tensor(codes, "codes", torch.uint8, 2), bits


@operator(_check_pack, lambda codes, bits: Result.packed(codes.size(0), codes.size(1), bits))
def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs uint8 codes ``[N, C]`` to ``[N, ceil(C * bits / 8)]``, low bits first."""
    return packing.pack(codes, bits)


def _check_unpack(packed: Tensor, bits: int, num_cols: int) -> tuple[Tensor, int, int]:
    return checks.packed_rows(packed, "packed", bits, num_cols), bits, num_cols


@operator(
    _check_unpack, lambda packed, bits, num_cols: Result((packed.size(0), num_cols), torch.uint8)
)
def unpack(packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """Unpacks ``[N, ceil(num_cols * bits / 8)]`` bytes to uint8 codes ``[N, num_cols]``."""
    return packing.unpack(packed, bits, num_cols)


def along(t: Tensor, axis: int) -> Tensor:
    """A flat scale or zero point, shaped to broadcast over ``[N, C]``."""
    return t.view(-1, 1) if axis == 0 else t.view(1, -1)


def _check_gather(
    source: Source,
    index: Tensor,
    begin: int,
    end: int,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
) -> tuple[Source, Tensor, int, int, Tensor, Tensor, int]:
    source = source.checked()
    if source.coding:  # fields that have no kernel of their own here
        plain = coding_of(source.coding).decode(source.packed, source.bits, source.num_cols)
        source = Source(plain, source.bits, source.num_cols)
    index = checks.tensor(index, "index", torch.int32, 1)
    checks.same_device(("packed", source.packed), ("index", index))
    checks.has_rows(index, source.packed, "packed")
    if not 0 <= begin <= end <= index.numel():
        raise ShapeError(f"begin {begin} and end {end} are no range of {index.numel()} indices")
    shape = torch.empty((source.packed.size(0), source.num_cols), device="meta")
    scale = checks.parameter(scale, "scale", axis, shape, may_be_one=axis == -1)
    zero_point = checks.parameter(zero_point, "zero_point", axis, shape, may_be_one=True)
    checks.same_device(("packed", source.packed), ("scale", scale), ("zero_point", zero_point))
    return source, index, begin, end, scale, zero_point, axis


@operator(
    _check_gather,
    lambda source, index, begin, end, scale, zero_point, axis: Result(
        (end - begin, source.num_cols), torch.float32
    ),
)
def gather_rows(
    source: Source,
    index: Tensor,
    begin: int,
    end: int,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
) -> Tensor:
    """Rows taken by an index and decoded: ``(code - zero_point) * scale``, two roundings.

    Args:
        source: N rows of C columns.
        index: int32 ``[E]``, rows of the source; looked at once per tensor.
        begin: First entry of the index to take.
        end: Last entry, exclusive.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32, as many values or one.
        axis: Which axis the scale runs along.

    Returns:
        float32 ``[end - begin, C]``.
    """
    taken = index[begin:end]
    codes = packing.unpack(source.packed[taken], source.bits, source.num_cols).float()
    if axis == 0:
        scale, zero_point = scale[taken], zero_point[taken]
    return (codes - along(zero_point, axis)) * along(scale, axis)


def check_affine(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, and a scale and zero point per value of the axis.

    Raises:
        BitwidthError: If ``bits`` is not 1 to 8.
        ShapeError: If a type, shape or device does not fit.
    """
    check_bits(bits)
    x = checks.tensor(x, "x", torch.float32, 2)
    return (
        x,
        checks.parameter(scale, "scale", axis, x, may_be_one=axis == -1),
        checks.parameter(zero_point, "zero_point", axis, x, may_be_one=True),
    )


def check_row_factor(row_factor: Tensor | None, x: Tensor) -> Tensor | None:
    """Raises ShapeError unless it has one float32 per row of ``x``, on its device."""
    if row_factor is None:
        return None
    row_factor = checks.tensor(row_factor, "row_factor", torch.float32, 1)
    if row_factor.numel() != x.size(0):
        raise ShapeError(f"row_factor has {row_factor.numel()} values for {x.size(0)} rows of x")
    return row_factor


def _check_fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int
) -> tuple[Tensor, Tensor, Tensor, int, int]:
    return *check_affine(x, scale, zero_point, axis, bits), axis, bits


@operator(
    _check_fake_quantize,
    lambda x, scale, zero_point, axis, bits: Result(tuple(x.shape), torch.float32),
)
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """The codes of :func:`quantize_pack` (no row factor) as float32 ``[N, C]``.

    ``clamp(rne(x / scale + zero_point), 0, 2^bits - 1)``; NaN gives 0.
    """
    v = x / along(scale, axis) + along(zero_point, axis)
    v = torch.where(v.isnan(), torch.zeros_like(v), v)
    # +0 instead of -0, which rounding leaves for small negative values.
    return v.round().clamp(0.0, float((1 << bits) - 1)).abs()


def _check_quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, int, int, Tensor | None]:
    x, scale, zero_point = check_affine(x, scale, zero_point, axis, bits)
    return x, scale, zero_point, axis, bits, check_row_factor(row_factor, x)


@operator(
    _check_quantize_pack,
    lambda x, scale, zero_point, axis, bits, row_factor=None: Result.packed(
        x.size(0), x.size(1), bits
    ),
)
def quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> Tensor:
    """Codes ``clamp(rne(x * row_factor / scale + zero_point), 0, 2^bits - 1)``, packed.

    Args:
        x: float32 ``[N, C]``; NaN becomes code 0.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32, as many values or one.
        axis: Which axis the scale runs along.
        bits: 1 to 8.
        row_factor: float32 ``[N]``, multiplied first.

    Returns:
        uint8 ``[N, ceil(C * bits / 8)]``.
    """
    if row_factor is not None:
        x = x * row_factor.view(-1, 1)
    codes = fake_quantize.reference(x, scale, zero_point, axis, bits)
    return packing.pack(codes.to(torch.uint8), bits)


def _check_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    x, scale, zero_point = check_affine(x, scale, zero_point, axis, bits)
    grad = checks.tensor(grad, "grad", torch.float32, 2)
    if grad.shape != x.shape:
        raise ShapeError(f"grad has shape {list(grad.shape)} but x has {list(x.shape)}")
    if mode not in (0, 1, 2):
        raise ShapeError(f"mode must be 0 (clip), 1 (pass) or 2 (strict), got {mode}")
    return grad, x, scale, zero_point, axis, bits, mode


def _as_given(made: tuple[Tensor, Tensor, Tensor], *given: object) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of scale and zero point in the shapes in which those were given."""
    grad_x, grad_scale, grad_zero = made
    scale, zero_point = given[2], given[3]
    assert isinstance(scale, Tensor) and isinstance(zero_point, Tensor)
    if zero_point.numel() == 1 and grad_zero.numel() != 1:
        grad_zero = grad_zero.sum()
    return grad_x, grad_scale.reshape(scale.shape), grad_zero.reshape(zero_point.shape)


@operator(
    _check_backward,
    lambda grad, x, scale, zero_point, axis, bits, mode: tuple(
        Result(tuple(t.shape), torch.float32) for t in (x, scale, zero_point)
    ),
    finish=_as_given,
)
def fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through gradients of :func:`fake_quantize` for x, scale and zero point.

    Args:
        grad: float32 ``[N, C]``, gradient of the codes.
        x: As in the forward; likewise ``scale``, ``zero_point``, ``axis`` and ``bits``.
        scale: See :func:`quantize_pack`.
        zero_point: See :func:`quantize_pack`.
        axis: See :func:`quantize_pack`.
        bits: See :func:`quantize_pack`.
        mode: 0 stops the gradient outside the range, 1 stops it for scale and zero point only, 2
            stops it at the two end codes as well.

    Returns:
        Gradients shaped like ``x``, ``scale`` and ``zero_point``; the sums run in float64, and may
        differ in rounding between backends.
    """
    qmax = float((1 << bits) - 1)
    s = along(scale, axis)
    v = x / s + along(zero_point, axis)
    if mode == 2:
        code = v.round()
        inside = (code > 0) & (code < qmax)
    else:
        inside = (v >= 0) & (v <= qmax)
    zero = torch.zeros_like(grad)
    masked = torch.where(inside, grad, zero)
    grad_x = (grad if mode == 1 else masked) / s
    if mode != 1:
        grad_x = torch.where(inside, grad_x, zero)
    per_scale = torch.where(inside, -(masked * (x / s) / s), zero).double()
    per_zero = masked.double()
    if axis == -1:
        return grad_x, per_scale.sum().view(1).float(), per_zero.sum().view(1).float()
    return grad_x, per_scale.sum(1 - axis).float(), per_zero.sum(1 - axis).float()
