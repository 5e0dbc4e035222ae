"""Figures of numbers: outputs ``[N, T]``, targets ``[N, T]``, NaN where they are not known."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.tasks.metrics import Metric


def absolute_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """What every row adds to the mean distance of outputs to known targets."""
    known = ~targets.isnan()
    distance = torch.where(known, (outputs - targets.nan_to_num()).abs(), 0.0)
    return distance.sum(1) * (len(targets) / known.sum().clamp_min(1))


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared distance to known targets."""
    known = ~targets.isnan()
    return (outputs[known].double() - targets[known].double()).square().mean().sqrt()


def r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the variance that is explained, averaged over columns that vary."""
    found = []
    for guess, truth in zip(outputs.T.double(), targets.T.double(), strict=True):
        known = ~truth.isnan()
        if _varies(truth):
            own = truth[known]
            left = (guess[known] - own).square().sum()
            found.append(1 - left / (own - own.mean()).square().sum())
    return torch.stack(found).mean()


def _varies(column: Tensor) -> bool:
    return bool(column[~column.isnan()].unique().numel() > 1)


def _constant(targets: Tensor) -> str:
    if any(_varies(column) for column in targets.T):
        return ""
    return "it compares with the spread of targets, and all of a column are the same"


NUMBER_METRICS = {
    metric.name: metric
    for metric in (
        Metric("mae", "MAE", absolute_errors, higher_is_better=False, share=False),
        Metric("rmse", "RMSE", figure=rmse, higher_is_better=False, share=False),
        Metric("r2", "R2", figure=r2, share=False, undefined=_constant),
    )
}
