"""One class of several: nodes, graphs, edges, links of several types."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import Task, register_task
from nodebits.tasks.class_metrics import CLASS_METRICS
from nodebits.tasks.labels import as_tensor, only
from nodebits.tasks.losses import CLASS_LOSSES


@register_task("node", "graph", "edge", "link-classification")
class Classification(Task):
    """One class of several: cross entropy, accuracy.

    Targets are int64 ``[N]``. Of links class 0 is that there is none.
    """

    metrics = CLASS_METRICS
    losses = CLASS_LOSSES
    takes = "one class"
    output_name = "classes"
    predicts = "class indices"

    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """Classes; whole numbers, in any shape of one number per row."""
        y = as_tensor(y, place, self)
        if rows > 1 and y.dim() == 2 and y.size(1) != 1:
            raise LabelError(
                f"{place}: y has shape {list(y.shape)}: {only(self)}. Of one-hot rows: "
                "data.y = data.y.argmax(1)"
            )
        if rows == 1 and y.numel() != 1:
            raise LabelError(f"{place}: y has shape {list(y.shape)}: {only(self)}")
        if y.numel() != rows or y.dim() > 2:
            raise LabelError(f"{place}: y has {y.numel()} labels for {rows} {self.level.unit}s")
        return self._whole(y.reshape(-1), place)

    def _whole(self, y: Tensor, place: str) -> Tensor:
        if y.is_floating_point() or y.is_complex():
            fractional = (y.real != y.real.round()).nonzero()
            first = int(fractional[0]) if len(fractional) else 0
            where = f"y[{first}]" if y.numel() > 1 else "y"
            raise LabelError(
                f"{place}: y holds {y.dtype} ({where} is {y[first].item():g}): {only(self)}. Where "
                "whole numbers mean classes: data.y = data.y.long()"
            )
        return y.to(torch.int64)

    def check(self, targets: Tensor, rows: Tensor, outputs: int | None, split: str) -> None:
        """Refuses negative classes, and those that the model has no output for."""
        own, unit = targets[rows], self.level.unit
        bad = own < 0
        if outputs is not None:
            bad = bad | (own >= outputs)
        if not bool(bad.any()):
            return
        place = int(bad.nonzero()[0])
        value, row = int(own[place]), int(rows[place])
        reason = f"classes are numbered from 0; leave unlabelled {unit}s out of the split"
        if value >= 0 and outputs is not None:
            reason = (
                f"the model has {outputs} output(s), for classes 0 to {outputs - 1}: give its last "
                f"layer {int(own.max()) + 1} outputs, or number the classes from 0 without gaps"
            )
        raise LabelError(f"{unit} {row} ({split} split): y is {value}, but {reason}")

    def outputs(self, targets: Tensor) -> int:
        """One per class."""
        return int(targets.max()) + 1

    def balance(self, targets: Tensor) -> Tensor:
        """Rows by classes and rows of the class; a class without rows weighs nothing."""
        count = torch.bincount(targets, minlength=self.outputs(targets)).float()
        return torch.where(count > 0, len(targets) / (len(count) * count.clamp_min(1)), 0.0)

    def _weight_count(self, targets: Tensor) -> int:
        # A model may have outputs for classes that no training row has.
        given = 0 if self.class_weight is None else self.class_weight.numel()
        return max(given, self.outputs(targets))

    def without_examples(self, targets: Tensor, train: Tensor) -> list[int]:
        """Classes that no training row has."""
        own = targets.unique()
        return [int(value) for value in own[~torch.isin(own, targets[train])]]

    def of_links(self, y: Tensor) -> Tensor:
        """Types of links are counted from 1: class 0 is that there is none."""
        return y + 1

    def imitation(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Divergence of the teacher's classes from the outputs'."""
        return F.kl_div(
            F.log_softmax(outputs, dim=-1),
            F.log_softmax(teacher, dim=-1),
            reduction="batchmean",
            log_target=True,
        )

    def predictions(self, outputs: Tensor) -> Tensor:
        """The class of the largest output, int64 ``[N]``."""
        return outputs.argmax(dim=-1)

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """Class and logits; their softmax are probabilities."""
        logits = {f"logit_{number}": column for number, column in enumerate(outputs.T)}
        return {"class": self.predictions(outputs), **logits}

    def suits(self, y: Tensor) -> bool:
        """Whole numbers, one per row; of links other words are usual."""
        return (
            not self.level.absent
            and not y.is_floating_point()
            and not y.is_complex()
            and y.numel() == len(y)
        )

    def strata(self, targets: Tensor) -> Tensor | None:
        """The classes."""
        return targets
