"""Rows of one width: packing, quantizing, and the gradients of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core import packing
from nodebits.core.affine import check_bits
from nodebits.core.codings.base import coding_of
from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.host import check_readable
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Source


class Pack(NamedTuple):
    """Packs uint8 codes ``[N, C]`` to ``[N, ceil(C * bits / 8)]``, low bits first."""

    codes: Tensor
    bits: int

    def checked(self) -> Pack:
        check_bits(self.bits)
        return Pack(checks.tensor(self.codes, "codes", torch.uint8, 2), self.bits)

    def results(self) -> Result:
        return Result.packed(self.codes.size(0), self.codes.size(1), self.bits)

    def compute(self) -> Tensor:
        return packing.pack(self.codes, self.bits)


pack = operator(Pack)


class Unpack(NamedTuple):
    """Unpacks ``[N, ceil(num_cols * bits / 8)]`` bytes to uint8 codes ``[N, num_cols]``."""

    packed: Tensor
    bits: int
    num_cols: int

    def checked(self) -> Unpack:
        packed = checks.packed_rows(self.packed, "packed", self.bits, self.num_cols)
        return self._replace(packed=packed)

    def results(self) -> Result:
        return Result((self.packed.size(0), self.num_cols), torch.uint8)

    def compute(self) -> Tensor:
        return packing.unpack(self.packed, self.bits, self.num_cols)


unpack = operator(Unpack)


def along(t: Tensor, axis: int) -> Tensor:
    """A flat scale or zero point, shaped to broadcast over ``[N, C]``."""
    return t.view(-1, 1) if axis == 0 else t.view(1, -1)


class GatherRows(NamedTuple):
    """Rows taken by an index and decoded: ``(code - zero_point) * scale``, two roundings.

    The rows, and a scale of each, may lie in the host's memory (:mod:`nodebits.ops.host`): the
    device of ``taken`` then reads those that are taken.

    Args:
        source: N rows of C columns.
        taken: int32 ``[E]``, rows of the source; looked at once per tensor.
        begin: First entry of ``taken`` to read.
        end: Last entry, exclusive.
        scale: float32, 1 value (``axis`` -1), N (0) or C (1).
        zero_point: float32, as many values or one.
        axis: Which axis the scale runs along.

    Returns:
        float32 ``[end - begin, C]``.
    """

    source: Source
    taken: Tensor
    begin: int
    end: int
    scale: Tensor
    zero_point: Tensor
    axis: int

    def checked(self) -> GatherRows:
        source, axis, begin, end = self.source.checked(), self.axis, self.begin, self.end
        device = self.taken.device
        if source.coding:  # fields that have no kernel of their own here
            if source.packed.device != device:
                raise ShapeError(
                    f"packed is on {source.packed.device} in a coding of its own, which {device} "
                    "does not read from there: take the rows first (take_rows)"
                )
            plain = coding_of(source.coding).decode(source.packed, source.bits, source.num_cols)
            source = Source(plain, source.bits, source.num_cols)
        taken = checks.tensor(self.taken, "taken", torch.int32, 1)
        check_readable(device, "packed", source.packed)
        checks.has_rows(taken, source.packed, "packed")
        if not 0 <= begin <= end <= taken.numel():
            raise ShapeError(f"begin {begin} and end {end} are no range of {taken.numel()} rows")
        shape = torch.empty((source.packed.size(0), source.num_cols), device="meta")
        scale = checks.parameter(self.scale, "scale", axis, shape, may_be_one=axis == -1)
        zero_point = checks.parameter(self.zero_point, "zero_point", axis, shape, may_be_one=True)
        check_readable(device, "scale", scale)
        check_readable(device, "zero_point", zero_point)
        return GatherRows(source, taken, begin, end, scale, zero_point, axis)

    def results(self) -> Result:
        return Result((self.end - self.begin, self.source.num_cols), torch.float32)

    def compute(self) -> Tensor:
        source, scale, zero_point = self.source, self.scale, self.zero_point
        taken = self.taken[self.begin : self.end]
        codes = packing.unpack(source.packed[taken], source.bits, source.num_cols).float()
        if self.axis == 0:
            scale, zero_point = scale[taken], zero_point[taken]
        return (codes - along(zero_point, self.axis)) * along(scale, self.axis)


gather_rows = operator(GatherRows, hosted=("packed", "scale", "zero_point"))


def check_row_factor(row_factor: Tensor | None, x: Tensor) -> Tensor | None:
    """Raises ShapeError unless it has one float32 per row of ``x``, on its device."""
    if row_factor is None:
        return None
    row_factor = checks.tensor(row_factor, "row_factor", torch.float32, 1)
    if row_factor.numel() != x.size(0):
        raise ShapeError(f"row_factor has {row_factor.numel()} values for {x.size(0)} rows of x")
    return row_factor


class FakeQuantize(NamedTuple):
    """The codes of :func:`quantize_pack` (no row factor) as float32 ``[N, C]``.

    ``clamp(rne(x / scale + zero_point), 0, 2^bits - 1)``; NaN gives 0.
    """

    x: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int
    bits: int

    def checked(self) -> FakeQuantize:
        check_bits(self.bits)
        x = checks.tensor(self.x, "x", torch.float32, 2)
        one = self.axis == -1
        scale = checks.parameter(self.scale, "scale", self.axis, x, may_be_one=one)
        zero = checks.parameter(self.zero_point, "zero_point", self.axis, x, may_be_one=True)
        return FakeQuantize(x, scale, zero, self.axis, self.bits)

    def results(self) -> Result:
        return Result(tuple(self.x.shape), torch.float32)

    def compute(self) -> Tensor:
        v = self.x / along(self.scale, self.axis) + along(self.zero_point, self.axis)
        v = torch.where(v.isnan(), torch.zeros_like(v), v)
        # +0 instead of -0, which rounding leaves for small negative values.
        return v.round().clamp(0.0, float((1 << self.bits) - 1)).abs()


fake_quantize = operator(FakeQuantize)


class QuantizePack(NamedTuple):
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

    x: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int
    bits: int
    row_factor: Tensor | None = None

    def checked(self) -> QuantizePack:
        rows = FakeQuantize(*self[:5]).checked()
        return QuantizePack(*rows, check_row_factor(self.row_factor, rows.x))

    def results(self) -> Result:
        return Result.packed(self.x.size(0), self.x.size(1), self.bits)

    def compute(self) -> Tensor:
        x, scale, zero_point, axis, bits, row_factor = self
        if row_factor is not None:
            x = x * row_factor.view(-1, 1)
        codes = fake_quantize.reference(x, scale, zero_point, axis, bits)
        return packing.pack(codes.to(torch.uint8), bits)


quantize_pack = operator(QuantizePack)


class FakeQuantizeBackward(NamedTuple):
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

    grad: Tensor
    x: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int
    bits: int
    mode: int

    def checked(self) -> FakeQuantizeBackward:
        x, scale, zero_point, _, _ = FakeQuantize(*self[1:6]).checked()
        grad = checks.tensor(self.grad, "grad", torch.float32, 2)
        if grad.shape != x.shape:
            raise ShapeError(f"grad has shape {list(grad.shape)} but x has {list(x.shape)}")
        if self.mode not in (0, 1, 2):
            raise ShapeError(f"mode must be 0 (clip), 1 (pass) or 2 (strict), got {self.mode}")
        return self._replace(grad=grad, x=x, scale=scale, zero_point=zero_point)

    def results(self) -> tuple[Result, ...]:
        return tuple(
            Result(tuple(t.shape), torch.float32) for t in (self.x, self.scale, self.zero_point)
        )

    def as_given(self, made: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of scale and zero point in the shapes in which those were given."""
        grad_x, grad_scale, grad_zero = made
        if self.zero_point.numel() == 1 and grad_zero.numel() != 1:
            grad_zero = grad_zero.sum()
        scale = grad_scale.reshape(self.scale.shape)
        return grad_x, scale, grad_zero.reshape(self.zero_point.shape)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        grad, x, scale, zero_point, axis, bits, mode = self
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
        per_scale = torch.where(inside, masked * (x / s), zero).double()
        per_zero = masked.double()
        if axis == -1:
            of_scale, of_zero = per_scale.sum().view(1), per_zero.sum().view(1)
        else:
            of_scale, of_zero = per_scale.sum(1 - axis), per_zero.sum(1 - axis)
        # Divided last, so that a scale that is NaN is not hidden where no value is in the range.
        of_scale = of_scale / -scale.double()
        return grad_x, of_scale.float(), of_zero.float()


fake_quantize_backward = operator(FakeQuantizeBackward)
