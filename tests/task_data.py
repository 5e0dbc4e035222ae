"""Small data that any task of the registry can learn: the checks of tasks take theirs from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nodebits.core.errors import LabelError
from nodebits.tasks import Task, find_task

ROWS = 60


def targets_for(task: Task, hidden: Any) -> Any:
    """Targets that follow from a number per row: the form that the task likes, else one it takes.

    Args:
        task: The task.
        hidden: float ``[rows]``.
    """
    forms = [(hidden > 0).astype(np.int64), hidden.astype(np.float32)]
    forms.append(np.stack([hidden > 0, hidden < 0.3, hidden > 0.5], axis=1).astype(np.int64))
    takes = [y for y in forms if _taken(task, torch.from_numpy(y))]
    assert takes, f"{task.name} takes neither classes, numbers nor labels"
    return next((y for y in takes if task.suits(torch.from_numpy(y))), takes[0])


def _taken(task: Task, y: torch.Tensor) -> bool:
    try:
        task.check(task.targets(y, len(y), "y"), torch.arange(len(y)), None, "train")
    except LabelError:
        return False
    return True


def own_npz(folder: Path, name: str, **changes: Any) -> Path:
    """Writes 60 nodes of one graph, or 60 graphs, with targets of a task; returns the file."""
    task, random = find_task(name), np.random.default_rng(0)
    hidden = random.normal(size=ROWS)
    sizes = 3 + np.arange(ROWS) % 4 if task.level.many_graphs else np.ones(ROWS, int)
    row = np.repeat(np.arange(ROWS), sizes)
    first = np.cumsum(sizes) - sizes
    ring = first[row] + (np.arange(len(row)) - first[row] + 1) % sizes[row]
    near = np.argsort(hidden)  # one graph joins what has like targets
    source = np.arange(len(row)) if task.level.many_graphs else near[:-1]
    target = ring if task.level.many_graphs else near[1:]
    arrays = {
        "x": (hidden[row, None] + 0.1 * random.normal(size=(len(row), 5))).astype(np.float32),
        "edge_index": np.stack([np.r_[source, target], np.r_[target, source]]),
        "y": targets_for(task, hidden),
    }
    if task.level.many_graphs:
        arrays["batch"] = row
    for number, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_mask"] = np.arange(ROWS) % 3 == number
    path = folder / f"{name}.npz"
    np.savez(path, **{n: v for n, v in {**arrays, **changes}.items() if v is not None})
    return path
