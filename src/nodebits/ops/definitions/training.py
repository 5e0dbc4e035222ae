"""What training does with sums of codes that it keeps as floats."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Epilogue, spread_heads


class RescaleFloats(NamedTuple):
    """The epilogue of :func:`rescale`, of sums that are float32 ``[N, C]`` already."""

    acc: Tensor
    epilogue: Epilogue

    def checked(self) -> RescaleFloats:
        acc = checks.tensor(self.acc, "acc", torch.float32, 2)
        return RescaleFloats(acc, self.epilogue.checked(*acc.shape))

    def results(self) -> Result:
        return Result(tuple(self.acc.shape), torch.float32)

    def compute(self) -> Tensor:
        return self.epilogue.apply(self.acc)


rescale_floats = operator(RescaleFloats)


class RescaleBackward(NamedTuple):
    """Gradients of :func:`rescale_floats` for acc, ``col_scale``, ``col_offset`` and the bias.

    Args:
        grad: float32 ``[N, C]``, gradient of the result.
        acc: As in the forward; likewise ``epilogue``, whose bias is not read.
        epilogue: See :func:`rescale_floats`.

    Returns:
        float32 ``[N, C]``, and three of ``[C]``: sums over rows in float64, which may differ in
        rounding between backends.
    """

    grad: Tensor
    acc: Tensor
    epilogue: Epilogue

    def checked(self) -> RescaleBackward:
        acc = checks.tensor(self.acc, "acc", torch.float32, 2)
        grad = checks.tensor(self.grad, "grad", torch.float32, 2)
        if grad.shape != acc.shape:
            raise ShapeError(f"grad has shape {list(grad.shape)} but acc has {list(acc.shape)}")
        return RescaleBackward(grad, acc, self.epilogue.checked(*acc.shape))

    def results(self) -> tuple[Result, ...]:
        column = Result((self.acc.size(1),), torch.float32)
        return Result(tuple(self.acc.shape), torch.float32), column, column, column

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        col_scale, col_offset, row_offset, row_scale, _ = self.epilogue
        before, centred = self.grad, self.acc
        num_cols = centred.size(1)
        if row_scale is not None:
            before = before * spread_heads(row_scale, num_cols)
        made = before * col_scale
        to_offset = made.new_zeros(made.shape)
        if col_offset is not None:
            rows = made.new_ones(1, 1) if row_offset is None else row_offset
            rows = spread_heads(rows, num_cols)
            centred = centred - rows * col_offset
            to_offset = made * rows
        parts = (before * centred, -to_offset, self.grad)
        scale, offset, bias = (part.double().sum(0).float() for part in parts)
        return made, scale, offset, bias


rescale_backward = operator(RescaleBackward)
