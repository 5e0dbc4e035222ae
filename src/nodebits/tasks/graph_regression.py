"""Graph regression, and what regression of any level is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import GRAPH, Task, register_task
from nodebits.tasks.labels import as_tensor, only
from nodebits.tasks.metrics import Metric


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean distance of a row's outputs to its targets."""
    return (outputs - targets).abs().mean(dim=1)


class Regression(Task):
    """Numbers: absolute error. Targets are float32 ``[N, T]``, one or several a row."""

    metric = Metric("mae", "MAE", absolute_error, higher_is_better=False, share=False)
    takes = "one or several numbers"
    loss_name = "mean absolute error"
    output_name = "targets"
    predicts = "rows of numbers"

    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """Numbers ``[rows]`` or ``[rows, T]``; of one row also ``[T]``."""
        y = as_tensor(y, place, self)
        if y.is_complex() or y.dim() > 2 or y.numel() == 0:
            raise LabelError(f"{place}: y is {y.dtype} {list(y.shape)}: {only(self)}")
        if rows == 1 and y.dim() < 2:
            y = y.view(1, -1)
        if y.size(0) != rows:
            raise LabelError(f"{place}: y has {y.size(0)} rows for {rows} {self.level.unit}s")
        numbers: Tensor = y.reshape(rows, -1).float()
        return numbers

    def check(self, targets: Tensor, rows: Tensor, outputs: int | None, split: str) -> None:
        """Refuses what is not finite, and a model of another number of outputs."""
        own, unit = targets[rows], self.level.unit
        bad = (~torch.isfinite(own)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            where = f"y[{column}]" if targets.size(1) > 1 else "y"
            raise LabelError(
                f"{unit} {int(rows[row])} ({split} split): {where} is {own[row, column].item()}: "
                f"leave {unit}s without a target out of the split"
            )
        if outputs is not None and outputs != targets.size(1):
            raise LabelError(
                f"y has {targets.size(1)} number(s) per {unit}, the model has {outputs} output(s): "
                f"give its last layer {targets.size(1)}"
            )

    def outputs(self, targets: Tensor) -> int:
        """One per number."""
        return targets.size(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute error."""
        return F.l1_loss(outputs, targets)

    def imitation(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance to the teacher's numbers."""
        return F.l1_loss(outputs, teacher)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, float32 ``[N]``, or ``[N, T]`` of several."""
        return outputs.squeeze(1)

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """The numbers."""
        if outputs.size(1) == 1:
            return {"value": outputs[:, 0]}
        return {f"value_{number}": column for number, column in enumerate(outputs.T)}

    def suits(self, y: Tensor) -> bool:
        """Real numbers that are not all 0 or 1."""
        return y.is_floating_point() and not bool(((y == 0) | (y == 1)).all())

    def agreement(self, first: Tensor, second: Tensor) -> float:
        """Share of rows whose numbers differ by rounding at most."""
        if first.size(0) == 0:
            return float("nan")
        return float(torch.isclose(first, second).all(dim=1).double().mean())


@register_task("graph-regression")
class GraphRegression(Regression):
    """Numbers per graph: mean absolute error, less is better."""

    level = GRAPH
