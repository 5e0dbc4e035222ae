"""Predictions and figures of merit of a float, simulated or packed model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from nodebits.core.modes import evaluating
from nodebits.data import Dataset
from nodebits.train.metrics import Metrics, classification_metrics
from nodebits.train.problem import Forward, Inputs, Problem, Split, as_problem


def forward_of(model: nn.Module) -> Forward:
    """Returns an evaluation forward without gradients: a packed model's ``predict``, or the model.

    Every module is switched to evaluation for the call, and back to its own mode.
    """
    packed: Callable[..., Tensor] | None = getattr(model, "predict", None)

    @torch.no_grad()
    def forward(inputs: Inputs) -> Tensor:
        if packed is not None:
            return inputs.apply(packed)
        with evaluating(model):
            return inputs.apply(model)

    return forward


def predict_logits(
    model: nn.Module, data: Problem | Dataset | Data, split: Split | None = None
) -> Tensor:
    """Returns the logits of a split, or of every node or graph in order."""
    return as_problem(data).logits(forward_of(model), split)


def evaluate(model: nn.Module, data: Problem | Dataset | Data, split: Split = "test") -> Metrics:
    """Returns accuracy and cross entropy of ``model`` on a split.

    Args:
        model: A float model, one that ``prepare`` made, or a packed one.
        data: The data set.
        split: ``train``, ``val`` or ``test``.
    """
    problem = as_problem(data)
    return classification_metrics(
        problem.logits(forward_of(model), split), problem.split_labels(split)
    )
