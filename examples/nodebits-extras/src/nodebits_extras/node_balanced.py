"""A task: classification of nodes in which every class counts alike, however rare it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.tasks import Metric, register_task
from nodebits.tasks.classification import Classification
from nodebits.tasks.losses import Loss


def _weights(targets: Tensor) -> Tensor:
    """A weight per row: all rows of a class together weigh as much as those of any other."""
    _, place, counts = torch.unique(targets, return_inverse=True, return_counts=True)
    return (len(targets) / (len(counts) * counts.float()))[place]


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    """The weight of a row where its class is found, else 0: the mean is balanced accuracy."""
    return (outputs.argmax(dim=-1) == targets) * _weights(targets)


def _loss(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    del weight
    return (F.cross_entropy(outputs, targets, reduction="none") * _weights(targets)).mean()


_METRICS = {"balanced_accuracy": Metric("balanced_accuracy", "balanced accuracy", _right)}
_LOSSES = {"balanced": Loss("balanced", "balanced cross entropy", _loss)}


@register_task("node-balanced")
class NodeBalanced(Classification):
    """One class per node, rare ones count alike: balanced accuracy."""

    metrics = _METRICS
    losses = _LOSSES

    def suits(self, y: Tensor) -> bool:
        """Never by itself: classes alone mean the plain task."""
        return False
