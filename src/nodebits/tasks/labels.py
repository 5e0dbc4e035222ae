"""Targets as data have them, made tensors; what is said where they are of another task."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.tasks.base import Task


def as_tensor(y: Any, place: str, task: Task) -> Tensor:
    """Returns ``y`` as a dense tensor.

    Raises:
        LabelError: It is missing, sparse, or no numbers.
    """
    if isinstance(y, Tensor):
        if y.layout is not torch.strided:
            raise LabelError(f"{place}: y is sparse: {only(task)}. Use y.to_dense()")
        return y
    if y is None:
        raise LabelError(
            f"{place}: y is missing: training needs {task.takes} per {task.level.unit}"
        )
    if isinstance(y, numbers.Number):
        return torch.tensor(y, device="cpu")
    try:
        return torch.as_tensor(y, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabelError(
            f"{place}: y is a {type(y).__name__}, not a tensor of targets: {only(task)}"
        ) from error


def only(task: Task) -> str:
    """What a task takes, and how another one is named."""
    unit = task.level.unit
    problem = (
        "GraphProblem(graphs, train, val, test" if task.level.many_graphs else "NodeProblem(data"
    )
    return (
        f"task {task.name!r} takes {task.takes} per {unit}; for regression or several labels pass "
        f"nodebits.train.{problem}, task=NAME), of 'nodebits tasks'"
    )
