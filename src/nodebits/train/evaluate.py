"""Predictions and figures of merit of a float, simulated or packed model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.core.modes import evaluating
from nodebits.tasks import Metrics, Task
from nodebits.train.forms import as_problem
from nodebits.train.inputs import Inputs
from nodebits.train.problem import SPLITS, Forward, Split


def forward_of(model: nn.Module) -> Forward:
    """Returns an evaluation forward without gradients of a float, simulated or packed model.

    Every module is switched to evaluation for the call, and back to its own mode.
    """

    @torch.no_grad()
    def forward(inputs: Inputs) -> Tensor:
        with evaluating(model):
            return inputs.apply(model)

    return forward


def predict_logits(
    model: nn.Module, data: Any, split: Split | None = None, task: str | Task | None = None
) -> Tensor:
    """Returns the outputs for a split, or for every node, graph or pair in order."""
    problem = as_problem(data, task)
    problem.example("val").warn_ignored(model)
    return problem.logits(forward_of(model), split)


def evaluate(
    model: nn.Module,
    data: Any,
    split: Split = "test",
    *,
    task: str | Task | None = None,
    metric: Any = None,
    loss: Any = None,
) -> Metrics:
    """Returns metric and loss of ``model`` on a split, such as ``accuracy`` and cross entropy.

    Args:
        model: A float model, one that ``prepare`` made, or a packed one.
        data: What ``fit`` takes; the model is given the fields that its forward names.
        split: ``train``, ``val`` or ``test``.
        task: As in ``fit``.
        metric: Likewise.
        loss: Likewise.

    Raises:
        ConfigError: The split is empty, or not one of these; or ``data`` is nothing to evaluate on.
        LabelError: A target of the split is none for the model, such as a class that it lacks.
        ShapeError: The model does not return a row of logits per node or graph.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}: use one of {', '.join(SPLITS)}")
    problem = as_problem(data, task, metric=metric, loss=loss)
    problem.example("val").warn_ignored(model)
    return problem.metrics(forward_of(model), split)
