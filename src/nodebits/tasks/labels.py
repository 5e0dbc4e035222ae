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


def refuse_unknown(task: Task, targets: Tensor, rows: Tensor, split: str) -> None:
    """Refuses rows of a split that have no target at all; of others the known ones are used.

    Raises:
        LabelError: Names the first row, and how many there are.
    """
    unknown = targets[rows].isnan().all(1).nonzero()
    if not len(unknown):
        return
    unit, row = task.level.unit, int(rows[int(unknown[0])])
    where = "y" if targets.size(1) == 1 else "every y"
    raise LabelError(
        f"{unit} {row} ({split} split): {where} is nan, as of {len(unknown)} {unit}(s) there: "
        f"leave {unit}s without a target out of the split, such as "
        f"{split}_mask &= ~y.isnan()"
    )


def refuse_width(task: Task, targets: Tensor, outputs: int | None) -> None:
    """Refuses a model with another number of outputs than a row has targets.

    Raises:
        LabelError: Says both shapes.
    """
    wanted = task.outputs(targets)
    if outputs is None or outputs == wanted:
        return
    unit = task.level.unit
    raise LabelError(
        f"y has {wanted} {task.output_name} per {unit} ([{len(targets)}, {wanted}]), the model has "
        f"{outputs} output(s) ([{unit}s, {outputs}]): give its last layer {wanted}"
    )


def only(task: Task) -> str:
    """What a task takes, and how another one is named."""
    return (
        f"task {task.name!r} takes {task.takes} per {task.level.unit}; for regression, several "
        "labels and so on name another of 'nodebits tasks': task=NAME of fit, evaluate and problems"
    )
