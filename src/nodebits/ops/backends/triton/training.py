"""The epilogue of sums that training keeps as floats, and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.ops.backends.triton import products
from nodebits.ops.backends.triton.finish import epilogue_of
from nodebits.ops.backends.triton.kernels import training
from nodebits.ops.backends.triton.launch import launch, rule_tiles
from nodebits.ops.definitions.training import RescaleBackward, RescaleFloats

# Rows that a program adds up, a multiple of those of any tile: what it leaves to be added is a
# small part of what it reads.
_LINES = 128


def rescale_floats(given: RescaleFloats) -> Tensor:
    """See the definition."""
    return products.rescale(given)


def rescale_backward(given: RescaleBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See the definition. Sums are added in an order that the shape alone decides."""
    grad, acc, epilogue = given
    num_rows, num_cols = acc.shape
    (_, columns), tile = rule_tiles(num_rows, num_cols)
    grid = -(-num_rows // _LINES), columns
    sums = acc.new_empty((3, grid[0], num_cols), dtype=torch.float64)
    grad_acc = torch.empty_like(acc)
    launch(
        training.rescale_backward, grid, acc, grad, acc, grad_acc, tuple(sums.unbind()), num_rows,
        num_cols, epilogue_of(epilogue), LINES=_LINES, **tile,
    )  # fmt: skip
    scale, offset, bias = sums.sum(1).float().unbind()
    return grad_acc, scale, offset, bias
