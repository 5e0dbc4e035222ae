"""MRR and Hits@k by OGB's published definitions: one right answer ranked among wrong ones.

The rank is 1 plus the number of wrong answers that score higher; those that score alike count half.
Hits@k on one pool of wrong answers asks for a score above the k-th highest of them, so that there
all that score alike count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nodebits.tasks.metrics import Metric

Ranks = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def ranks_of_classes(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Rank of the right column of every row, and the same where ties count for it to hit."""
    own = outputs.gather(1, targets.view(-1, 1))
    above = (outputs > own).sum(1).double()
    rank = 0.5 * (above + (outputs >= own).sum(1) - 1) + 1
    return rank, rank


def ranks_of_pairs(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the pairs that are links, each among the others of its query.

    Args:
        outputs: ``[P, 1]``.
        targets: ``[P, 1]`` 0 or 1, all of one query; or ``[P, 2]``, with the number of a query.
    """
    scores, label = outputs[:, 0], targets[:, 0] > 0
    query = torch.zeros_like(label, dtype=torch.int64)
    if targets.size(1) > 1:
        query = targets[:, 1].long()
    # Numbers that order as scores do: key by query and score, without rounding.
    levels, level = torch.unique(scores, return_inverse=True)
    key = query * levels.numel() + level
    wrong = key[~label].sort().values
    own = key[label]
    end = torch.searchsorted(wrong, (query[label] + 1) * levels.numel())
    above = (end - torch.searchsorted(wrong, own, right=True)).double()
    alike = (end - torch.searchsorted(wrong, own)).double()
    rank = 0.5 * (above + alike) + 1
    one_pool = bool((query == query[:1]).all())
    return rank, alike + 1 if one_pool else rank


def _unanswered(targets: Tensor) -> str:
    for wanted, what in ((1, "a link"), (0, "a pair that is none")):
        if not bool((targets[:, 0] == wanted).any()):
            return f"it ranks links among pairs that are none, and {what} is missing"
    return ""


def rank_metrics(ranks: Ranks, k: int = 10, pairs: bool = False) -> dict[str, Metric]:
    """MRR and Hits@k of one way to find ranks.

    Args:
        ranks: The way.
        k: Of Hits@k.
        pairs: Whether only rows that are links have a rank.
    """
    undefined = _unanswered if pairs else None

    def reciprocal(outputs: Tensor, targets: Tensor) -> Tensor:
        return 1.0 / ranks(outputs, targets)[0]

    def hits(outputs: Tensor, targets: Tensor) -> Tensor:
        return (ranks(outputs, targets)[1] <= k).double()

    found = {}
    for name, title, rows in (("mrr", "MRR", reciprocal), (f"hits@{k}", f"Hits@{k}", hits)):
        if pairs:
            figure = _mean_of(rows)
            found[name] = Metric(name, title, figure=figure, undefined=undefined)
        else:
            found[name] = Metric(name, title, rows)
    return found


def _mean_of(rows: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: rows(outputs, targets).mean()


def with_any_k(
    known: Mapping[str, Metric], name: str, ranks: Ranks | None, pairs: bool
) -> Metric | None:
    """The metric of a name; ``hits@20`` and so on where ranks exist."""
    if name in known:
        return known[name]
    found = re.fullmatch(r"hits@([1-9]\d{0,8})", name)
    if found is None or ranks is None:
        return None
    return rank_metrics(ranks, int(found[1]), pairs)[name]
