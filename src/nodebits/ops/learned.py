"""Steps of training with learned scales, each as one function of autograd.

They compute what their operations would one by one, in the same order: small batches would spend
more time between the operations than in them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.affine import MIN_SCALE, max_code
from nodebits.ops.autograd import neighbor_bag, unrounded
from nodebits.ops.backends.cpu import training
from nodebits.ops.definitions.rows import FakeQuantize, FakeQuantizeBackward


def positive(parameter: Tensor) -> Tensor:
    """The scale that a parameter stands for."""
    return parameter.abs().clamp_min_(MIN_SCALE)


def _to_parameter(sign: Tensor, scale: Tensor, grad: Tensor, factor: float) -> Tensor:
    """The gradient of a parameter from that of :func:`positive` of it, times LSQ's factor.

    The parameter itself may have another range by then, found by a later call of the step.
    """
    mine = (grad * factor) * sign
    return torch.where(scale > MIN_SCALE, mine, 0.0)


class LearnedCodes(torch.autograd.Function):
    """Codes of rows with a learned scale, and that scale with LSQ's gradient.

    The zero point is no parameter here. Rows of ``kept`` hold ``x / scale + zero_point``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameter: Tensor,
        zero_point: Tensor,
        kept: Tensor | None,
        axis: int,
        bits: int,
        mode: int,
    ) -> tuple[Tensor, Tensor]:
        """``x`` float32 ``[N, C]``; ``kept`` int64, rows that stay in float."""
        scale = positive(parameter)
        codes = training.fake_quantize(FakeQuantize(x, scale, zero_point, axis, bits))
        if kept is not None:
            codes.index_copy_(0, kept, x.index_select(0, kept) / scale + zero_point)
        ctx.save_for_backward(x, parameter.sgn(), scale, zero_point, kept)
        ctx.axis, ctx.bits, ctx.mode = axis, bits, mode
        ctx.set_materialize_grads(False)
        return codes, scale

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_scale: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range; kept rows pass everything."""
        x, sign, scale, zero_point, kept = ctx.saved_tensors
        grad_x = None
        if grad is not None:
            grad = grad.contiguous()
            inside, rows = grad, None
            if kept is not None:
                rows = grad.index_select(0, kept)
                inside = grad.index_fill(0, kept, 0.0)
            grad_x, mine = training.fake_quantize_backward(
                FakeQuantizeBackward(inside, x, scale, zero_point, ctx.axis, ctx.bits, ctx.mode)
            )
            if rows is not None:
                grad_x.index_copy_(0, kept, rows / scale)
                of_kept = -rows * ((x.index_select(0, kept) / scale) / scale)
                of_kept = of_kept.sum(0) if scale.numel() > 1 else of_kept.sum().view(1)
                grad_scale = of_kept if grad_scale is None else grad_scale + of_kept
            grad_scale = mine if grad_scale is None else grad_scale + mine
        if grad_scale is not None:
            count = max(x.numel() // scale.numel(), 1)
            factor = (count * max_code(ctx.bits)) ** -0.5
            grad_scale = _to_parameter(sign, scale, grad_scale, factor)
        needs = ctx.needs_input_grad
        return (
            grad_x if needs[0] else None,
            grad_scale if needs[1] else None,
            None,
            None,
            None,
            None,
            None,
        )


class LearnedWeightCodes(torch.autograd.Function):
    """Signed codes of weights with a learned scale per row, and that scale with LSQ's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        parameter: Tensor,
        center: float,
        bits: int,
        mode: int,
        midrise: bool,
    ) -> tuple[Tensor, Tensor]:
        """``weight`` float32 ``[M, K]`` -> codes ``[M, K]``, scales ``[M]``."""
        scale = positive(parameter)
        zero_point = torch.full_like(scale, center)
        codes = training.fake_quantize(FakeQuantize(weight, scale, zero_point, 0, bits))
        ctx.save_for_backward(weight, parameter.sgn(), scale, zero_point)
        ctx.bits, ctx.mode, ctx.midrise = bits, mode, midrise
        ctx.set_materialize_grads(False)
        if midrise:
            return codes.mul_(2).sub_(max_code(bits)), scale * 0.5
        return codes.sub_(center), scale.clone()

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_scale: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range."""
        weight, sign, scale, zero_point = ctx.saved_tensors
        if ctx.midrise:
            grad = None if grad is None else grad * 2
            grad_scale = None if grad_scale is None else grad_scale * 0.5
        grad_weight = None
        if grad is not None:
            grad = grad.contiguous()
            grad_weight, mine = training.fake_quantize_backward(
                FakeQuantizeBackward(grad, weight, scale, zero_point, 0, ctx.bits, ctx.mode)
            )
            grad_scale = mine if grad_scale is None else grad_scale + mine
        if grad_scale is not None:
            factor = (weight.size(1) * max_code(ctx.bits)) ** -0.5
            grad_scale = _to_parameter(sign, scale, grad_scale, factor)
        needs = ctx.needs_input_grad
        return (
            grad_weight if needs[0] else None,
            grad_scale if needs[1] else None,
            None,
            None,
            None,
            None,
        )


class CodesProduct(torch.autograd.Function):
    """``rows @ weight^T`` of codes, and its epilogue."""

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Codes ``[N, K]`` with one scale, weights ``[M, K]`` with a scale per row."""
        with unrounded(codes):
            acc = codes @ weight.t()
        column = weight_scale * scale
        sums = weight.sum(1)
        offset = zero_point * sums
        ctx.save_for_backward(
            codes, scale, zero_point, weight, weight_scale, acc, column, sums, offset
        )
        return training.rescale_floats(acc, column, offset, None, None, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of all arguments."""
        codes, scale, zero_point, weight, weight_scale, acc, column, sums, offset = (
            ctx.saved_tensors
        )
        made, to_column, to_offset, to_bias = training.rescale_backward(
            grad.contiguous(), acc, column, offset, None, None
        )
        needs = ctx.needs_input_grad
        to_weight = None
        with unrounded(grad):
            to_codes = made @ weight if needs[0] else None
            if needs[3]:
                to_weight = made.t() @ codes
                to_weight += (to_offset * zero_point).view(-1, 1)
        return (
            to_codes,
            (to_column * weight_scale).sum().view(scale.shape) if needs[1] else None,
            (to_offset * sums).sum().view(zero_point.shape) if needs[2] else None,
            to_weight,
            to_column * scale if needs[4] else None,
            to_bias if needs[5] else None,
        )


class OwnSum(torch.autograd.Function):
    """Codes summed over neighbours plus a factor of a row's own, both of one scale per column.

    ``(sum - degree * zero_point) * scale + ((own - zero_point) * scale) * factor``.
    """

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, scale: Tensor, zero_point: Tensor, factor: Tensor, graph: Any
    ) -> Tensor:
        """Codes ``[N, C]``, scale and zero point ``[C]`` or ``[1]``, factor one value."""
        acc = neighbor_bag(graph.indptr, graph.indices, codes)
        degree = graph.degree.view(-1, 1)
        every = factor.view(1, 1).expand(codes.size(0), 1).contiguous()
        rescale = training.rescale_floats
        out = rescale(acc, scale, zero_point, degree, None, None)
        out += rescale(codes, scale, zero_point, None, every, None)
        ctx.save_for_backward(codes, scale, zero_point, factor, acc)
        ctx.graph = graph
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of codes, scale and factor."""
        codes, scale, zero_point, factor, acc = ctx.saved_tensors
        back, grad = training.rescale_backward, grad.contiguous()
        degree = ctx.graph.degree.view(-1, 1)
        made, to_scale, _, _ = back(grad, acc, scale, zero_point, degree, None)
        _, of_own, _, _ = back(grad, codes, scale, zero_point, None, None)
        needs = ctx.needs_input_grad
        to_codes = None
        if needs[0]:
            indptr, indices, _ = ctx.graph.transposed()
            to_codes = neighbor_bag(indptr, indices, made)
            to_codes.addcmul_(made, factor.view(1, 1))
        whole = to_scale + of_own * factor
        return (
            to_codes,
            (whole if scale.numel() > 1 else whole.sum().view(1)) if needs[1] else None,
            None,
            (of_own * scale).sum().view(factor.shape) if needs[3] else None,
            None,
        )
