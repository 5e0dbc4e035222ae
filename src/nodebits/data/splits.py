"""Splits: a fixed number per class, and the 10 folds of graph classification."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.data.base import Dataset, graph_targets
from nodebits.data.extras import require
from nodebits.tasks import Task, find_task

NUM_FOLDS = 10
FOLD_SEED = 12345

Split = tuple[Tensor, Tensor, Tensor]


def per_class_masks(y: Tensor, num_train: int = 20, num_val: int = 30, seed: int = 0) -> Split:
    """Draws a fixed number of nodes per class; the rest is the test set.

    The order within a class is ``torch.randperm`` of one CPU generator, classes ascending. A class
    too small for both counts gives at most a third of its nodes to each.

    Args:
        y: Labels, int64 ``[N]``.
        num_train: Training nodes per class.
        num_val: Validation nodes per class.
        seed: Seed of the generator.

    Returns:
        Train, validation and test masks, bool ``[N]``; every node is in exactly one.
    """
    generator = torch.Generator().manual_seed(seed)
    train = torch.zeros(y.size(0), dtype=torch.bool, device="cpu")
    val = torch.zeros_like(train)
    for label in range(int(y.max()) + 1):
        nodes = (y == label).nonzero().flatten()
        nodes = nodes[torch.randperm(nodes.numel(), generator=generator, device="cpu")]
        third = nodes.numel() // 3
        fits = num_train + num_val < nodes.numel()
        cut = num_train if fits else min(num_train, third)
        end = cut + (num_val if fits else min(num_val, third))
        train[nodes[:cut]] = True
        val[nodes[cut:end]] = True
    return train, val, ~(train | val)


def drawn_masks(targets: Tensor, task: Task, seed: int) -> tuple[Split, str]:
    """Draws a split: so many per class, or where a task has no classes 60, 20 and 20 percent.

    Args:
        targets: Of all rows, as the task makes them.
        task: Says what the classes are.
        seed: Seed of the generator.

    Returns:
        Train, validation and test masks, bool ``[N]``, and how they were drawn.
    """
    strata = task.strata(targets)
    if strata is not None:
        return per_class_masks(strata, seed=seed), "20 per class train, 30 validate"
    rows = len(targets)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed), device="cpu")
    fifth = max(rows // 5, 1)
    parts = order[2 * fifth :], order[:fifth], order[fifth : 2 * fifth]
    train, val, test = (
        torch.zeros(rows, dtype=torch.bool, device="cpu").index_fill(0, part, True)
        for part in parts
    )
    return (train, val, test), "60 % train, 20 % validate, 20 % test"


def stratified_folds(
    y: Tensor, num_folds: int = NUM_FOLDS, seed: int = FOLD_SEED, classes: bool = True
) -> list[Split]:
    """Stratified folds over labels; the validation fold of each is the test fold of the one before.

    This is the protocol of PyG's graph classification benchmark, which Degree-Quant also reports
    on.

    Args:
        y: Labels, int64 ``[G]``.
        num_folds: Number of folds.
        seed: Seed of the shuffle.
        classes: Whether ``y`` are classes that every fold has its share of; else folds are plain.

    Returns:
        One (train, val, test) triple of ascending int64 indices per fold.
    """
    selection = require("sklearn.model_selection")
    splitter = (selection.StratifiedKFold if classes else selection.KFold)(
        num_folds, shuffle=True, random_state=seed
    )
    labels = y.numpy()
    tests = [torch.from_numpy(test).long() for _, test in splitter.split(labels, labels)]
    result = []
    for fold, test in enumerate(tests):
        val = tests[fold - 1]
        rest = torch.ones(y.numel(), dtype=torch.bool, device="cpu")
        rest[test] = False
        rest[val] = False
        result.append((rest.nonzero().flatten(), val, test))
    return result


def folds(dataset: Dataset, num_folds: int = NUM_FOLDS) -> list[Split]:
    """The folds of a graph-level set, stratified by classes (shuffled with seed 12345).

    Args:
        dataset: A graph-level data set.
        num_folds: Number of folds.

    Returns:
        One (train, val, test) triple of int64 graph numbers per fold.

    Raises:
        ValueError: ``dataset`` is node-level.
    """
    if not dataset.many_graphs:
        raise ValueError(
            f"data set {dataset.name!r} is node-level and has no folds; use its train, val and "
            "test masks"
        )
    task = find_task(dataset.task)
    targets = graph_targets(dataset.graphs, task)
    strata = task.strata(targets)
    y = torch.arange(len(targets), device="cpu") if strata is None else strata
    return stratified_folds(y, num_folds, classes=strata is not None)
