"""Numbers, one or several a row."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.errors import LabelError, TargetScaleWarning
from nodebits.tasks.base import Task, register_task
from nodebits.tasks.labels import as_tensor, only, refuse_unknown, refuse_width
from nodebits.tasks.losses import NUMBER_LOSSES
from nodebits.tasks.number_metrics import NUMBER_METRICS

# Adam moves a bias by its rate per step: a few hundred steps of 0.01 do not pass this.
_FAR, _NARROW = 30.0, 0.01


@register_task("node-regression", "graph-regression", "edge-regression", "link-regression")
class Regression(Task):
    """One or several numbers each: mean absolute error, less is better.

    Targets are float32 ``[N, T]``, NaN where a number is not known.
    """

    metrics = NUMBER_METRICS
    losses = NUMBER_LOSSES
    takes = "one or several numbers"
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
        """Refuses infinite numbers, rows without any, and a model of another number of outputs."""
        own = targets[rows]
        bad = torch.isinf(own).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            where = f"y[{column}]" if targets.size(1) > 1 else "y"
            raise LabelError(
                f"{self.level.unit} {int(rows[row])} ({split} split): {where} is "
                f"{own[row, column].item()}: targets are finite, or NaN where they are not known"
            )
        refuse_unknown(self, targets, rows, split)
        refuse_width(self, targets, outputs)

    def outputs(self, targets: Tensor) -> int:
        """One per number."""
        return targets.size(1)

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

    def warn(self, targets: Tensor) -> None:
        """Numbers far from zero, where outputs begin, or of a spread that their start exceeds."""
        middle = targets.nanmean(dim=0)
        spread = (targets - middle).square().nanmean(dim=0).sqrt().nan_to_num().max()
        middle = middle.nan_to_num().abs().max()
        if max(float(middle), float(spread)) > _FAR or 0.0 < float(spread) < _NARROW:
            warnings.warn(
                f"y is {float(middle):.3g} from zero with a spread of {float(spread):.3g}: a model "
                "starts near 0 with a spread near 1 and may not get there. Train on "
                "(y - mean) / spread of the training rows, and scale predictions back",
                TargetScaleWarning,
                stacklevel=2,
            )

    def suits(self, y: Tensor) -> bool:
        """Real numbers that are not all 0 or 1."""
        said = (y == 0) | (y == 1) | (y != y)
        return y.is_floating_point() and not self.level.absent and not bool(said.all())

    def agreement(self, first: Tensor, second: Tensor) -> float:
        """Share of rows whose numbers differ by rounding at most."""
        if first.size(0) == 0:
            return float("nan")
        return float(torch.isclose(first, second).all(dim=1).double().mean())
