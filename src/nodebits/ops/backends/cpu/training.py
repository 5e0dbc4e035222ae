"""Operators of training, called by functions of autograd without torch's dispatcher.

A step on small batches spends more time there, and in checks of what the function made itself, than
in the kernels. These compare all shapes once more. What is not plain memory of the CPU goes the
usual way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.ops.backends.cpu import kernels as backend
from nodebits.ops.definitions.rows import FakeQuantize, FakeQuantizeBackward


def _kernels_for(*tensors: Tensor) -> Any:
    """The compiled functions if they can read these as they are, else None."""
    kernels = backend.compiled()
    if kernels is None:
        return None
    for t in tensors:
        if not t.is_cpu or not t.is_contiguous() or t.is_neg():
            return None
    return kernels


def fake_quantize(given: FakeQuantize) -> Tensor:
    """See :func:`nodebits.ops.fake_quantize`; as many zero points as scales."""
    x, scale, zero_point, axis, bits = given
    kernels = _kernels_for(x)
    if kernels is None:
        made: Tensor = torch.ops.nodebits.fake_quantize(*given)
        return made
    out = torch.empty(x.shape, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    kernels.fake_quantize(x.detach(), scale, zero_point, axis, bits, out, threads)
    return out


def fake_quantize_backward(given: FakeQuantizeBackward) -> tuple[Tensor, Tensor]:
    """See :func:`nodebits.ops.fake_quantize_backward`; gradients of x and scale alone."""
    grad, x, scale, *more = given
    kernels = _kernels_for(grad, x)
    if kernels is None:
        made = torch.ops.nodebits.fake_quantize_backward(grad.contiguous(), x, scale, *more)
        return made[0], made[1]
    grad_x = torch.empty(x.shape, dtype=torch.float32, device="cpu")
    to_scale, to_zero = torch.empty_like(scale), torch.empty_like(scale)
    threads = torch.get_num_threads()
    kernels.fake_quantize_backward(
        grad, x.detach(), scale, *more, grad_x, to_scale, to_zero, threads
    )
    return grad_x, to_scale


def rescale_floats(
    acc: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """See :func:`nodebits.ops.rescale_floats`."""
    epilogue = (scale, offset, row_offset, row_scale, bias)
    kernels = _kernels_for(acc) if _whole(acc, epilogue) else None
    if kernels is None:
        made: Tensor = torch.ops.nodebits.rescale_floats(acc, *epilogue)
        return made
    out = torch.empty(acc.shape, dtype=torch.float32, device="cpu")
    kernels.rescale_floats(acc, _detached(epilogue), out, torch.get_num_threads())
    return out


def rescale_backward(
    grad: Tensor,
    acc: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`nodebits.ops.rescale_backward`."""
    epilogue = (scale, offset, row_offset, row_scale, None)
    kernels = _kernels_for(grad, acc) if _whole(acc, epilogue) else None
    if kernels is None:
        made: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.nodebits.rescale_backward(
            grad, acc, *epilogue
        )
        return made
    out = torch.empty(acc.shape, dtype=torch.float32, device="cpu")
    columns = torch.empty((3, acc.size(1)), dtype=torch.float32, device="cpu")
    to_scale, to_offset, to_bias = columns.unbind()
    kernels.rescale_backward(
        grad, acc, _detached(epilogue), out, to_scale, to_offset, to_bias, torch.get_num_threads()
    )
    return out, to_scale, to_offset, to_bias


def _whole(acc: Tensor, epilogue: tuple[Tensor | None, ...]) -> bool:
    """Whether columns and rows have a value each, with nothing to be spread."""
    scale, offset, row_offset, row_scale, bias = epilogue
    for t in (scale, offset, bias):
        if t is not None and (t.dim() != 1 or t.size(0) != acc.size(1) or not t.is_contiguous()):
            return False
    for t in (row_offset, row_scale):
        if t is not None and not (t.is_contiguous() and t.dim() == 2 and t.size(1) == 1):
            return False
    return True


def _detached(values: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(t.detach() if t is not None and t.requires_grad else t for t in values)
