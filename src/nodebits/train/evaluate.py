"""Predictions and figures of merit of a float, simulated or packed model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.core.modes import evaluating
from nodebits.train.inputs import Inputs
from nodebits.train.metrics import Metrics
from nodebits.train.problem import SPLITS, Forward, Split, as_problem


def forward_of(model: nn.Module) -> Forward:
    """Returns an evaluation forward without gradients of a float, simulated or packed model.

    Every module is switched to evaluation for the call, and back to its own mode.
    """

    @torch.no_grad()
    def forward(inputs: Inputs) -> Tensor:
        with evaluating(model):
            return inputs.apply(model)

    return forward


def predict_logits(model: nn.Module, data: Any, split: Split | None = None) -> Tensor:
    """Returns the logits of a split, or of every node or graph in order."""
    problem = as_problem(data)
    problem.example("val").warn_ignored(model)
    return problem.logits(forward_of(model), split)


def evaluate(model: nn.Module, data: Any, split: Split = "test") -> Metrics:
    """Returns accuracy and cross entropy of ``model`` on a split.

    Args:
        model: A float model, one that ``prepare`` made, or a packed one.
        data: What ``fit`` takes; the model is given the fields that its forward names.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: The split is empty, or not one of these; or ``data`` is nothing to evaluate on.
        LabelError: A label of the split is no class of the model.
        ShapeError: The model does not return a row of logits per node or graph.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}: use one of {', '.join(SPLITS)}")
    problem = as_problem(data)
    problem.example("val").warn_ignored(model)
    return problem.metrics(forward_of(model), split)
