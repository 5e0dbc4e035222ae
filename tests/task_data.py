"""Small data that any task of the registry can learn: the checks of tasks take theirs from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nodebits.core.errors import LabelError
from nodebits.tasks import Task, find_task

ROWS = 60
# Nodes of a graph whose pairs are the rows.
NODES = 24


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


def own_arrays(name: str) -> dict[str, Any]:
    """Arrays of a task: 60 nodes of one graph, 60 graphs, or 60 edges of one graph.

    Targets of links follow from nodes: of each half those are joined that are alike.
    """
    task, random = find_task(name), np.random.default_rng(0)
    if task.level.pairs:
        return _pairs(task, random)
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
    return arrays | masks_of(ROWS)


def _pairs(task: Task, random: Any) -> dict[str, Any]:
    hidden = np.sort(random.normal(size=NODES))
    source = np.arange(ROWS) % NODES
    # Near in number is near in what is hidden, and so is far from no one else.
    target = (source + 1 + np.arange(ROWS) // NODES) % NODES
    x = (hidden[:, None] + 0.1 * random.normal(size=(NODES, 5))).astype(np.float32)
    arrays = {"x": x, "edge_index": np.stack([source, target])}
    if task.name not in ("link", "link-ranking"):
        label = targets_for(task, hidden[source] + hidden[target])
        arrays["edge_label"] = label
    return arrays if task.level.absent else arrays | masks_of(ROWS)


def masks_of(rows: int) -> dict[str, Any]:
    """A third of the rows each."""
    return {
        f"{split}_mask": np.arange(rows) % 3 == number
        for number, split in enumerate(("train", "val", "test"))
    }


def own_npz(folder: Path, name: str, **changes: Any) -> Path:
    """Writes the arrays of a task, with changes; None leaves one out. Returns the file."""
    path = folder / f"{name}.npz"
    arrays = {**own_arrays(name), **changes}
    np.savez(path, **{n: v for n, v in arrays.items() if v is not None})
    return path
