"""Figures of labels: outputs ``[N, L]``, targets 0, 1 or NaN (unknown) ``[N, L]``.

Figures of a column are averaged over the columns in which they exist, as OGB's evaluator does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nodebits.tasks.metrics import Metric


def _cells(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    known = ~targets.isnan()
    return outputs[known], targets[known]


def shares_of_f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """What every row adds to the F1 of all labels: its first-order influence on the ratio."""
    known = ~targets.isnan()
    guess, truth = (outputs > 0).double() * known, targets.nan_to_num().double()
    hits, total = 2 * (guess * truth).sum(1), (guess + truth).sum(1)
    if not bool(total.any()):
        return total
    score = hits.sum() / total.sum()
    return score + (hits - score * total) / total.mean()


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the known labels that are right."""
    guess, truth = _cells(outputs, targets)
    return ((guess > 0) == (truth > 0)).double().mean()


def balanced_accuracy(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean of the shares of ones and of zeros that are found, of one column."""
    guess = scores > 0
    return (guess[truth > 0].double().mean() + (~guess)[truth == 0].double().mean()) / 2


def f1(scores: Tensor, truth: Tensor) -> Tensor:
    """F1 of one column; 0 where there is neither a one nor a guess of it."""
    guess, own = (scores > 0).double(), truth.double()
    return 2 * (guess * own).sum() / (guess + own).sum().clamp_min(1)


def roc_auc(scores: Tensor, truth: Tensor) -> Tensor:
    """Chance that a one scores above a zero, ties half; of one column."""
    _, place, count = torch.unique(scores, return_inverse=True, return_counts=True)
    # The mean rank of what scores alike.
    last = count.cumsum(0).double()
    rank = (last - (count - 1) / 2)[place]
    ones = truth > 0
    positive, negative = int(ones.sum()), int((~ones).sum())
    area: Tensor = (rank[ones].sum() - positive * (positive + 1) / 2) / (positive * negative)
    return area


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Precision at every score of a one, averaged; of one column."""
    order = scores.argsort(descending=True)
    ranked, ones = scores[order], truth[order].double()
    # Rows that score alike are one threshold: the last of them counts.
    ends = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])
    found = ones.cumsum(0)[ends]
    shown = (torch.arange(len(ranked), device=ranked.device) + 1)[ends]
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return (gained * found / shown).sum() / ones.sum()


def has_both(truth: Tensor) -> bool:
    """Whether a column has ones and zeros."""
    return bool((truth > 0).any()) and bool((truth == 0).any())


def has_ones(truth: Tensor) -> bool:
    """Whether a column has ones."""
    return bool((truth > 0).any())


def _columns(targets: Tensor, exists: Callable[[Tensor], bool]) -> list[tuple[int, Tensor]]:
    """Columns in which a figure exists, with the mask of their known rows."""
    known = ~targets.isnan()
    return [
        (number, known[:, number])
        for number in range(targets.size(1))
        if exists(targets[known[:, number], number])
    ]


def _averaged(
    of_column: Callable[[Tensor, Tensor], Tensor], exists: Callable[[Tensor], bool]
) -> Callable[[Tensor, Tensor], Tensor]:
    def figure(outputs: Tensor, targets: Tensor) -> Tensor:
        found = [
            of_column(outputs[known, number], targets[known, number])
            for number, known in _columns(targets, exists)
        ]
        return torch.stack([value.double() for value in found]).mean()

    return figure


def _without(exists: Callable[[Tensor], bool], needed: str) -> Callable[[Tensor], str]:
    def undefined(targets: Tensor) -> str:
        if _columns(targets, exists):
            return ""
        values = targets[~targets.isnan()].unique().tolist()
        shown = f"all are {values[0]:g}" if len(values) == 1 else "no column has them"
        return f"it needs {needed} among the targets, and {shown}"

    return undefined


def any_known(truth: Tensor) -> bool:
    """Whether a column has known labels."""
    return truth.numel() > 0


LABEL_METRICS = {
    metric.name: metric
    for metric in (
        Metric("f1_micro", "F1 (micro)", shares_of_f1),
        Metric("f1_macro", "F1 (macro)", figure=_averaged(f1, any_known)),
        Metric("accuracy", "accuracy", figure=accuracy),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            figure=_averaged(balanced_accuracy, has_both),
            undefined=_without(has_both, "both 0 and 1"),
        ),
        Metric(
            "roc_auc",
            "ROC-AUC",
            figure=_averaged(roc_auc, has_both),
            undefined=_without(has_both, "both 0 and 1"),
        ),
        Metric(
            "average_precision",
            "average precision",
            figure=_averaged(average_precision, has_ones),
            undefined=_without(has_ones, "a 1"),
        ),
    )
}
