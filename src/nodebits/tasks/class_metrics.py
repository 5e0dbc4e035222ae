"""Figures of one class per row: outputs ``[N, C]``, targets int64 ``[N]``."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.tasks.metrics import Metric


def right(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest output is that of the class, else 0."""
    return (outputs.argmax(dim=-1) == targets).float()


def _confusion(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many rows of a class (row) are taken for which (column), float64 ``[C, C]``."""
    classes = outputs.size(1)
    places = targets * classes + outputs.argmax(dim=-1)
    return torch.bincount(places, minlength=classes * classes).view(classes, classes).double()


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over classes with examples of the share of them that is found."""
    found = _confusion(outputs, targets)
    there = found.sum(1) > 0
    return (found.diagonal() / found.sum(1).clamp_min(1))[there].mean()


def f1_macro(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean F1 over classes that occur, or are predicted."""
    found = _confusion(outputs, targets)
    total = found.sum(0) + found.sum(1)
    return (2 * found.diagonal() / total.clamp_min(1))[total > 0].mean()


CLASS_METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", right),
        Metric("balanced_accuracy", "balanced accuracy", figure=balanced_accuracy),
        # Of one class per row every miss is one of each kind: F1 over all is the accuracy.
        Metric("f1_micro", "F1 (micro)", right),
        Metric("f1_macro", "F1 (macro)", figure=f1_macro),
    )
}
