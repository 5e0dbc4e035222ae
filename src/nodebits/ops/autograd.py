"""Differentiable forms of the operators, for training.

Codes are float32 tensors of integers here: sums and products of them are exact up to 2^24, so the
simulated forward computes what the integer kernels compute. Neighbour sums run through
``embedding_bag``, the fastest float gather-sum that torch has on CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Gradient(IntEnum):
    """What the straight-through estimator does with values outside the range."""

    CLIP = 0  # zero gradient outside [0, 2^b - 1]
    PASS = 1  # identity everywhere (Degree-Quant's STE)
    STRICT = 2  # zero at the two end codes as well (Degree-Quant's GC)


class FakeQuantize(torch.autograd.Function):
    """Codes of ``x`` with gradients for x, scale and zero point (LSQ, Esser et al. 2020)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
    ) -> Tensor:
        """Rounds; ``axis`` -1, 0 or 1 as in ``quantize_pack``."""
        ctx.save_for_backward(x, scale, zero_point)
        ctx.axis, ctx.bits, ctx.mode = axis, bits, mode
        codes: Tensor = torch.ops.nodebits.fake_quantize(x, scale, zero_point, axis, bits)
        return codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range."""
        x, scale, zero_point = ctx.saved_tensors
        grad_x, grad_scale, grad_zero = torch.ops.nodebits.fake_quantize_backward(
            grad.contiguous(), x, scale, zero_point, ctx.axis, ctx.bits, ctx.mode
        )
        needs = ctx.needs_input_grad
        return (
            grad_x if needs[0] else None,
            grad_scale if needs[1] else None,
            grad_zero if needs[2] else None,
            None,
            None,
            None,
        )


class Rescale(torch.autograd.Function):
    """The epilogue ``((acc - row_offset * col_offset) * col_scale) * row_scale + bias``.

    In one pass either way; a step of training would spend a third of its time on the operations one
    by one. Gradients are for all but what belongs to rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        acc: Tensor,
        col_scale: Tensor,
        col_offset: Tensor | None,
        row_offset: Tensor | None,
        row_scale: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """``acc`` float32 ``[N, C]``; the others as in :class:`nodebits.ops.Epilogue`."""
        ctx.save_for_backward(acc, col_scale, col_offset, row_offset, row_scale)
        result: Tensor = torch.ops.nodebits.rescale_floats(
            acc, col_scale, col_offset, row_offset, row_scale, bias
        )
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Sums over rows where one value served them all."""
        acc, col_scale, col_offset, row_offset, row_scale = ctx.saved_tensors
        made, scale, offset, bias = torch.ops.nodebits.rescale_backward(
            grad, acc, col_scale, col_offset, row_offset, row_scale, None
        )
        needs = ctx.needs_input_grad
        return (
            made if needs[0] else None,
            _as_given(scale, col_scale) if needs[1] else None,
            _as_given(offset, col_offset) if needs[2] else None,
            None,
            None,
            bias if needs[5] else None,
        )


def _as_given(grad: Tensor, column: Tensor) -> Tensor:
    """The gradient of a value per column, of one that served all of them."""
    return grad if column.numel() == grad.numel() else grad.sum().view(column.shape)


class Touch(torch.autograd.Function):
    """Identity on its first argument that gives the further ones a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Returns ``x``."""
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Passes the gradient on."""
        zeros = (torch.zeros_like(p) for p in ctx.saved_tensors)
        return grad if ctx.needs_input_grad[0] else None, *zeros


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant (LSQ's ``1 / sqrt(n qmax)``)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Returns ``x``."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Scales."""
        scaled: Tensor = grad * ctx.factor
        return scaled, None


class RoundSTE(torch.autograd.Function):
    """Round half to even, identity gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Rounds."""
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Passes."""
        return grad


def neighbor_bag(
    indptr: Tensor, indices: Tensor, x: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Sums of the rows of ``x`` that ``indices`` names, from ``indptr[i]`` on for row i."""
    if indices.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(indptr.numel() - 1, x.size(1))
    result: Tensor = torch.embedding_bag(
        x.contiguous(), indices, indptr.to(indices.dtype), False, 0, False, weight, True
    )[0]
    return result


class NeighborSum(torch.autograd.Function):
    """``out[i] = sum over the edges of row i of x[source]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Any) -> Tensor:
        """``x`` float32 ``[num_src, C]`` -> ``[num_dst, C]``."""
        ctx.graph = graph
        return neighbor_bag(graph.indptr, graph.indices, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The sum over the reversed edges."""
        indptr, indices, _ = ctx.graph.transposed()
        return neighbor_bag(indptr, indices, grad), None


def _by_head(graph: Any, heads: int, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """CSR over (row, head) pairs, so that one gather-sum serves all heads."""

    def make() -> tuple[Tensor, Tensor, Tensor]:
        if transposed:
            indptr, indices, order = graph.transposed()
        else:
            indptr, indices, order = graph.indptr, graph.indices, None
        degree = indptr.diff()
        starts = indptr[:-1]
        # Row (i, h) holds the edges of i; in edge order e they sit at e*heads + h of a [E, heads]
        # matrix.
        head_degree = degree.repeat_interleave(heads)
        head_ptr = torch.cat([indptr.new_zeros(1), head_degree.cumsum(0)])
        bag = torch.repeat_interleave(
            torch.arange(head_degree.numel(), device=indptr.device), head_degree
        )
        within = torch.arange(bag.numel(), device=indptr.device) - head_ptr[bag]
        edge = starts[bag // heads] + within
        head = bag % heads
        columns = (indices.long()[edge] * heads + head).int()
        position = (edge if order is None else order[edge]) * heads + head
        return head_ptr, columns, position

    value: tuple[Tensor, Tensor, Tensor] = graph.cached(("by_head", heads, transposed), make)
    return value


class WeightedNeighborSum(torch.autograd.Function):
    """``out[i, h] = sum over the edges of row i of weight[e, h] * x[source, h]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, graph: Any) -> Tensor:
        """``x`` ``[num_src, H*F]``, ``weight`` ``[E, H]`` in CSR order -> ``[num_dst, H*F]``."""
        ctx.save_for_backward(x, weight)
        ctx.graph = graph
        heads = weight.size(1)
        indptr, columns, position = _by_head(graph, heads, False)
        rows = x.reshape(x.size(0) * heads, x.size(1) // heads)
        return neighbor_bag(indptr, columns, rows, weight.reshape(-1)[position]).view(-1, x.size(1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Reversed weighted sum for x, per-edge dot products for the weights."""
        x, weight = ctx.saved_tensors
        graph, heads = ctx.graph, weight.size(1)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            indptr, columns, position = _by_head(graph, heads, True)
            rows = grad.reshape(grad.size(0) * heads, grad.size(1) // heads)
            grad_x = neighbor_bag(indptr, columns, rows, weight.reshape(-1)[position]).view(
                -1, x.size(1)
            )
        if ctx.needs_input_grad[1]:
            left = grad.index_select(0, graph.rows)
            right = x.index_select(0, graph.indices)
            grad_weight = (left * right).view(left.size(0), heads, x.size(1) // heads).sum(-1)
        return grad_x, grad_weight, None


class EdgeSoftmaxCodes(torch.autograd.Function):
    """Unsigned codes of ``exp(e - max_row)`` per edge and head; see ``edge_softmax``.

    The row maximum is a constant of the gradient: the quotient by the row sum does not depend on
    it.
    """

    @staticmethod
    def forward(
        ctx: Any, score_src: Tensor, score_dst: Tensor, graph: Any, negative_slope: float, bits: int
    ) -> Tensor:
        """Scores ``[num_src, H]`` and ``[num_dst, H]`` -> codes float32 ``[E, H]``."""
        codes: Tensor = torch.ops.nodebits.edge_softmax(
            graph.indptr, graph.indices, score_src, score_dst, negative_slope, bits
        )[0]
        ctx.save_for_backward(score_src, score_dst)
        ctx.graph, ctx.slope, ctx.qmax = graph, negative_slope, (1 << bits) - 1
        return codes.float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """``d code / d e = exp(e - max) * qmax`` (rounding passed straight through)."""
        score_src, score_dst = ctx.saved_tensors
        graph = ctx.graph
        raw = score_src.index_select(0, graph.indices) + score_dst.index_select(0, graph.rows)
        slope = torch.where(raw > 0, 1.0, ctx.slope)
        e = raw * slope
        top = e.new_full((graph.num_dst, e.size(1)), -float("inf"))
        top = top.index_reduce_(0, graph.rows, e, "amax")
        value = torch.exp(e - top.index_select(0, graph.rows)) * ctx.qmax
        grad_raw = grad * value * slope
        grad_src = torch.zeros_like(score_src).index_add_(0, graph.indices, grad_raw)
        grad_dst = torch.zeros_like(score_dst).index_add_(0, graph.rows, grad_raw)
        return grad_src, grad_dst, None, None, None


def neighbor_sum(x: Tensor, graph: Any, weight: Tensor | None = None) -> Tensor:
    """Differentiable (weighted) sum over neighbours.

    Args:
        x: float32 ``[num_src, C]``.
        graph: Object with ``indptr``, ``indices``, ``rows``, ``transposed()`` and ``cached()``.
        weight: float32 ``[E, H]`` in CSR order, H dividing C; None for unit weights.

    Returns:
        float32 ``[num_dst, C]``.
    """
    if weight is None:
        result: Tensor = NeighborSum.apply(x, graph)
    else:
        result = WeightedNeighborSum.apply(x, weight, graph)
    return result


def unrounded(like: Tensor) -> AbstractContextManager[Any]:
    """Products of ``like`` stay in float32 inside, also within ``torch.autocast``."""
    device = like.device.type
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


class ExactProduct(torch.autograd.Function):
    """``left @ right`` in float32 both ways, wherever ``backward`` is called."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        """Matrices, of the same batch where there is one; ``right`` may be a vector."""
        ctx.save_for_backward(left, right)
        with unrounded(left):
            return left @ right

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Of both."""
        left, right = ctx.saved_tensors
        to_left = to_right = None
        with unrounded(left):
            if ctx.needs_input_grad[0]:
                vector = right.dim() == 1
                to_left = torch.outer(grad, right) if vector else grad @ right.transpose(-2, -1)
            if ctx.needs_input_grad[1]:
                to_right = left.transpose(-2, -1) @ grad
        return to_left, to_right


def dense_product(rows: Tensor, weight: Tensor) -> Tensor:
    """``rows @ weight`` in float32: autocast would round codes to 8 bits of mantissa."""
    if not torch.is_autocast_enabled(rows.device.type):
        return rows @ weight
    result: Tensor = ExactProduct.apply(rows, weight)
    return result
