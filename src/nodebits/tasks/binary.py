"""Yes or no: one output, the logit of yes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import register_task
from nodebits.tasks.label_metrics import LABEL_METRICS
from nodebits.tasks.labels import as_tensor, only
from nodebits.tasks.metrics import Metric
from nodebits.tasks.multilabel import MultiLabel
from nodebits.tasks.rank_metrics import rank_metrics, ranks_of_pairs, with_any_k

_FIRST = ("roc_auc", "average_precision", "accuracy", "balanced_accuracy", "f1_micro")
_METRICS = {name: LABEL_METRICS[name] for name in _FIRST}
_METRICS |= rank_metrics(ranks_of_pairs, pairs=True)


@register_task("node-binary", "graph-binary", "edge-binary", "link")
class Binary(MultiLabel):
    """Yes or no each, in one output: binary cross entropy, ROC-AUC.

    Targets are 0 or 1, float32 ``[N, 1]``.
    """

    metrics = _METRICS
    takes = "0 or 1"
    output_name = "logits"
    predicts = "answers"

    def find_metric(self, name: str) -> Metric:
        """Also ``hits@K`` of any K."""
        return with_any_k(self.metrics, name, ranks_of_pairs, True) or super().find_metric(name)

    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """Zeros and ones, one per row, also as bools."""
        y = as_tensor(y, place, self)
        if y.is_complex() or y.dim() > 2 or (y.dim() == 2 and y.size(1) != 1):
            raise LabelError(f"{place}: y is {y.dtype} {list(y.shape)}: {only(self)}")
        if y.numel() != rows:
            raise LabelError(f"{place}: y has {y.numel()} labels for {rows} {self.level.unit}s")
        return super().targets(y.reshape(-1, 1), rows, place)

    def _place(self, column: int) -> str:
        return "y"

    def without_examples(self, targets: Tensor, train: Tensor) -> list[int]:
        """Of 0 and 1 what no training row is."""
        return [v for v in (0, 1) if (targets == v).any() and not (targets[train] == v).any()]

    def predictions(self, outputs: Tensor) -> Tensor:
        """1 where yes is likelier, uint8 ``[N]``."""
        return (outputs[:, 0] > 0).to(torch.uint8)

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """The answer, and the probability of yes."""
        chance = torch.sigmoid(outputs[:, 0])
        return {"answer": self.predictions(outputs), "probability": chance}

    def suits(self, y: Tensor) -> bool:
        """Of links always: there or not is what is usually asked. Classes are not taken for it."""
        return self.level.absent and y.dim() < 2 and bool(((y == 0) | (y == 1)).all())

    def strata(self, targets: Tensor) -> Tensor | None:
        """The answers, where all are known."""
        return None if bool(targets.isnan().any()) else targets[:, 0].long()
