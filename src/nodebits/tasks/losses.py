"""Losses by name: what models are trained to make small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Weighted = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        name: As options and arguments have it.
        title: As people read it.
        function: Outputs ``[N, C]``, targets and weights of classes -> mean, a scalar.
        weighted: Whether it takes weights of classes.
    """

    name: str
    title: str
    function: Weighted
    weighted: bool = False


def _named(*losses: Loss) -> dict[str, Loss]:
    return {loss.name: loss for loss in losses}


def _cross_entropy(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    return F.cross_entropy(outputs, targets, weight)


def _focal(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """Cross entropy of a row times the square of how unlikely its class was said to be."""
    chance = torch.log_softmax(outputs, dim=-1)
    own = chance.gather(1, targets.view(-1, 1)).squeeze(1)
    each = -((1 - own.exp()) ** 2) * own
    if weight is None:
        return each.mean()
    share = weight[targets]
    return (each * share).sum() / share.sum()


CLASS_LOSSES = _named(
    Loss("cross_entropy", "cross entropy", _cross_entropy, weighted=True),
    Loss("focal", "focal loss", _focal, weighted=True),
)


def _binary(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    known = ~targets.isnan()
    share = None if weight is None else weight.expand_as(targets)[known]
    return F.binary_cross_entropy_with_logits(outputs[known], targets[known], pos_weight=share)


LABEL_LOSSES = _named(
    Loss("binary_cross_entropy", "binary cross entropy", _binary, weighted=True),
)


def _of_known(function: Callable[[Tensor, Tensor], Tensor]) -> Weighted:
    def loss(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
        del weight
        known = ~targets.isnan()
        return function(outputs[known], targets[known])

    return loss


NUMBER_LOSSES = _named(
    Loss("mae", "mean absolute error", _of_known(F.l1_loss)),
    Loss("mse", "mean squared error", _of_known(F.mse_loss)),
    Loss("huber", "Huber loss", _of_known(F.huber_loss)),
)


def _ranked(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """Cross entropy of every link among the pairs of its query that are none."""
    del weight
    scores, label, query = outputs[:, 0], targets[:, 0] > 0, targets[:, 1].long()
    names, place = torch.unique(query, return_inverse=True)
    # Only differences count; without the largest of a query no exponential overflows.
    lifted = scores.detach().new_full((names.numel(),), -torch.inf)
    lifted = lifted.scatter_reduce(0, place, scores.detach(), "amax")
    shifted = scores - lifted[place]
    wrong = torch.zeros_like(lifted).index_add(0, place[~label], shifted[~label].exp())
    own = shifted[label]
    return (torch.log(own.exp() + wrong[place[label]]) - own).mean()


def _ranked_apart(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    return _binary(outputs, targets[:, :1], weight)


PAIR_LOSSES = _named(
    Loss("ranking", "cross entropy among the pairs of a query", _ranked),
    Loss("binary_cross_entropy", "binary cross entropy", _ranked_apart, weighted=True),
)
