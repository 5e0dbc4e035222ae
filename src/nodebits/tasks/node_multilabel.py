"""Node classification with several labels a node, and what such tasks of any level are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import NODE, Task, register_task
from nodebits.tasks.labels import as_tensor, only
from nodebits.tasks.metrics import Metric


def shares_of_f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """What every row adds to the F1 of all labels: its first-order influence on the ratio."""
    guess, truth = (outputs > 0).double(), targets.double()
    hits, total = 2 * (guess * truth).sum(1), (guess + truth).sum(1)
    if not bool(total.any()):
        return total
    score = hits.sum() / total.sum()
    return score + (hits - score * total) / total.mean()


class MultiLabel(Task):
    """Any of several labels. Targets are 0 or 1, float32 ``[N, labels]``."""

    metric = Metric("f1_micro", "F1 (micro)", shares_of_f1)
    takes = "0 or 1 for every label"
    loss_name = "binary cross entropy"
    output_name = "labels"
    predicts = "rows of labels"

    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """Zeros and ones ``[rows, labels]``; of one row also ``[labels]``."""
        y = as_tensor(y, place, self)
        if rows == 1 and y.dim() == 1:
            y = y.view(1, -1)
        if y.is_complex() or y.dim() != 2 or y.size(1) == 0:
            raise LabelError(f"{place}: y is {y.dtype} {list(y.shape)}: {only(self)}")
        if y.size(0) != rows:
            raise LabelError(f"{place}: y has {y.size(0)} rows for {rows} {self.level.unit}s")
        labels: Tensor = y.float()
        return labels

    def check(self, targets: Tensor, rows: Tensor, outputs: int | None, split: str) -> None:
        """Refuses other numbers, and a model of another number of outputs."""
        own, unit = targets[rows], self.level.unit
        bad = ((own != 0) & (own != 1)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise LabelError(
                f"{unit} {int(rows[row])} ({split} split): y[{column}] is "
                f"{own[row, column].item():g}, not 0 or 1: leave unlabelled {unit}s out of the "
                "split"
            )
        if outputs is not None and outputs != targets.size(1):
            raise LabelError(
                f"y has {targets.size(1)} labels per {unit}, the model has {outputs} output(s): "
                f"give its last layer {targets.size(1)}"
            )

    def outputs(self, targets: Tensor) -> int:
        """One per label."""
        return targets.size(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross entropy over all labels."""
        return F.binary_cross_entropy_with_logits(outputs, targets)

    def imitation(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Divergence of the teacher's labels from the outputs'."""
        soft = torch.sigmoid(teacher)
        cross = F.binary_cross_entropy_with_logits(outputs, soft)
        return cross - F.binary_cross_entropy_with_logits(teacher, soft)

    def predictions(self, outputs: Tensor) -> Tensor:
        """1 where a label is likelier than not, uint8 ``[N, labels]``."""
        return (outputs > 0).to(torch.uint8)

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """Every label, and its probability."""
        labels = {f"label_{n}": column for n, column in enumerate(self.predictions(outputs).T)}
        chances = torch.sigmoid(outputs).T
        return labels | {f"probability_{n}": column for n, column in enumerate(chances)}

    def suits(self, y: Tensor) -> bool:
        """A matrix of zeros and ones."""
        return y.dim() == 2 and y.size(1) > 1 and bool(((y == 0) | (y == 1)).all())


@register_task("node-multilabel")
class NodeMultiLabel(MultiLabel):
    """Any of several labels per node: binary cross entropy, micro-averaged F1."""

    level = NODE
