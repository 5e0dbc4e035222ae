"""Figures of merit of a set of predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.distributed import sum_over_ranks, world_size


@dataclass(frozen=True)
class Metrics:
    """Accuracy (0 to 1), mean cross entropy, and over how many rows."""

    accuracy: float
    loss: float
    count: int

    def of_all_ranks(self) -> Metrics:
        """The same over the rows of all ranks of a distributed training, which then agree."""
        if world_size() == 1:
            return self
        own = torch.tensor([self.accuracy, self.loss, 1.0], dtype=torch.float64) * self.count
        correct, loss, count = sum_over_ranks(own).tolist()
        return Metrics(correct / count, loss / count, int(count))


def classification_metrics(logits: Tensor, labels: Tensor) -> Metrics:
    """Returns accuracy and cross entropy of ``logits`` [n, classes] against ``labels`` [n]."""
    if labels.numel() == 0:
        return Metrics(accuracy=float("nan"), loss=float("nan"), count=0)
    correct = int((logits.argmax(dim=-1) == labels).sum())
    return Metrics(correct / labels.numel(), F.cross_entropy(logits, labels).item(), labels.numel())


def agreement(first: Tensor, second: Tensor) -> float:
    """Returns the share of rows for which both logits predict the same class."""
    if first.size(0) == 0:
        return float("nan")
    return int((first.argmax(dim=-1) == second.argmax(dim=-1)).sum()) / first.size(0)


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """Returns mean and sample standard deviation; the latter is 0 for a single value."""
    column = torch.tensor(values, dtype=torch.float64)
    spread = column.std(correction=1).item() if len(values) > 1 else 0.0
    return column.mean().item(), spread
