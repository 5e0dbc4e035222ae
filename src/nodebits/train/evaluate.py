"""Predictions and figures of merit of a float, simulated or packed model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.core.modes import evaluating
from nodebits.tasks import Metrics
from nodebits.train.inputs import Inputs
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
    """Returns the outputs for a split, or for every node or graph in order."""
    problem = as_problem(data)
    problem.example("val").warn_ignored(model)
    return problem.logits(forward_of(model), split)


def evaluate(model: nn.Module, data: Any, split: Split = "test") -> Metrics:
    """Returns metric and loss of ``model`` on a split, such as ``accuracy`` and cross entropy.

    Args:
        model: A float model, one that ``prepare`` made, or a packed one.
        data: What ``fit`` takes; the model is given the fields that its forward names.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: The split is empty, or not one of these; or ``data`` is nothing to evaluate on.
        LabelError: A target of the split is none for the model, such as a class that it lacks.
        ShapeError: The model does not return a row of logits per node or graph.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}: use one of {', '.join(SPLITS)}")
    problem = as_problem(data)
    problem.example("val").warn_ignored(model)
    return problem.metrics(forward_of(model), split)
