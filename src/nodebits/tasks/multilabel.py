"""Several labels, any of which a row may have."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import Task, register_task
from nodebits.tasks.label_metrics import LABEL_METRICS
from nodebits.tasks.labels import as_tensor, only, refuse_unknown, refuse_width
from nodebits.tasks.losses import LABEL_LOSSES


@register_task("node-multilabel", "graph-multilabel", "edge-multilabel", "link-multilabel")
class MultiLabel(Task):
    """Any of several labels each: binary cross entropy, micro-averaged F1.

    Targets are 0, 1, or NaN where a label is not known, float32 ``[N, labels]``.
    """

    metrics = LABEL_METRICS
    losses = LABEL_LOSSES
    takes = "0 or 1 for every label"
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
        bad = ((own != 0) & (own != 1) & ~own.isnan()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise LabelError(
                f"{unit} {int(rows[row])} ({split} split): {self._place(column)} is "
                f"{own[row, column].item():g}, not 0 or 1: leave unlabelled {unit}s out of the "
                "split"
            )
        refuse_unknown(self, targets, rows, split)
        refuse_width(self, targets, outputs)

    def _place(self, column: int) -> str:
        return f"y[{column}]"

    def balance(self, targets: Tensor) -> Tensor:
        """Zeros by ones of every label; 1 where there are no ones."""
        ones, zeros = (targets == 1).sum(0).float(), (targets == 0).sum(0).float()
        return torch.where(ones > 0, zeros / ones.clamp_min(1), 1.0)

    def without_examples(self, targets: Tensor, train: Tensor) -> list[int]:
        """Labels that some row has, and no training row."""
        some, learned = (targets == 1).any(0), (targets[train] == 1).any(0)
        return (some & ~learned).nonzero().flatten().tolist()

    def outputs(self, targets: Tensor) -> int:
        """One per label."""
        return targets.size(1)

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
        """A matrix of zeros and ones, and of what is not known."""
        return y.dim() == 2 and y.size(1) > 1 and bool(((y == 0) | (y == 1) | (y != y)).all())
