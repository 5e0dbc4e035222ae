"""Links ranked among pairs that are none: of one query each, or of all queries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import register_task
from nodebits.tasks.binary import Binary
from nodebits.tasks.labels import as_tensor, only
from nodebits.tasks.losses import PAIR_LOSSES
from nodebits.tasks.rank_metrics import rank_metrics, ranks_of_pairs


@register_task("link-ranking")
class LinkRanking(Binary):
    """Links among pairs that are none: cross entropy of a query's pairs, MRR and Hits@k.

    Targets are float32 ``[P, 2]``: 1 of a link or 0, and the number of its query.
    """

    metrics = rank_metrics(ranks_of_pairs, pairs=True)
    losses = PAIR_LOSSES
    takes = "1 or 0, and the number of a query where there are several,"
    predicts = "scores"
    queries = True

    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """``[rows]`` of one query, or ``[rows, 2]`` with the number of each."""
        y = as_tensor(y, place, self)
        if y.dim() == 1:
            y = torch.stack([y, torch.zeros_like(y)], dim=1)
        if y.is_complex() or y.dim() != 2 or y.size(1) != 2:
            raise LabelError(f"{place}: y is {y.dtype} {list(y.shape)}: {only(self)}")
        if y.size(0) != rows:
            raise LabelError(f"{place}: y has {y.size(0)} rows for {rows} {self.level.unit}s")
        pairs: Tensor = y.float()
        return pairs

    def check(self, targets: Tensor, rows: Tensor, outputs: int | None, split: str) -> None:
        """As of a yes or no."""
        super().check(targets[:, :1], rows, outputs, split)

    def is_absent(self, targets: Tensor) -> Tensor:
        """As the first column says."""
        return targets[:, 0] == 0

    def outputs(self, targets: Tensor) -> int:
        """One score."""
        return 1

    def without_examples(self, targets: Tensor, train: Tensor) -> list[int]:
        """As of a yes or no."""
        return super().without_examples(targets[:, :1], train)

    def balance(self, targets: Tensor) -> Tensor:
        """As of a yes or no."""
        return super().balance(targets[:, :1])

    def predictions(self, outputs: Tensor) -> Tensor:
        """The scores, float32 ``[P]``."""
        return outputs[:, 0]

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """The score; more is likelier."""
        return {"score": outputs[:, 0]}

    def agreement(self, first: Tensor, second: Tensor) -> float:
        """Share of pairs whose scores differ by rounding at most."""
        if first.size(0) == 0:
            return float("nan")
        return float(torch.isclose(first, second).all(dim=1).double().mean())

    def suits(self, y: Tensor) -> bool:
        """Never by itself."""
        del y
        return False

    def strata(self, targets: Tensor) -> Tensor | None:
        """None: queries matter as much."""
        del targets
        return None
