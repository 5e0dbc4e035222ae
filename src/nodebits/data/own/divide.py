"""Rows divided into splits: by the data's own masks, a column, time, shares, or a draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError, LabelError
from nodebits.data.own.options import SPLITS, SplitRule
from nodebits.data.splits import drawn_masks
from nodebits.tasks import Task

Masks = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Given:
    """What data say of their split.

    Attributes:
        masks: Arrays ``[rows]`` or ``[rows, splits]`` by split.
        split: 0, 1, 2, or -1 for none, ``[rows]``.
        time: Numbers ``[rows]``.
        columns: Reads a column by its name, as numbers of splits or as times.
        unknown: Which rows have no target, bool ``[rows]``, where targets cannot say it.
    """

    masks: Mapping[str, Any] = field(default_factory=dict)
    split: Any = None
    time: Any = None
    columns: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    unknown: Any = None


def divided(
    path: Path, given: Given, targets: Tensor, task: Task, rule: SplitRule
) -> tuple[Masks, str]:
    """Masks of training, validation and test, bool ``[rows]``, and how they were made.

    Rows without a target are in no split that is drawn.

    Raises:
        FileFormatError: Masks are not three, or have another length.
        ConfigError: The rule does not fit what the data have.
        LabelError: A target of a split is none of the task.
    """
    rows = len(targets)
    known = task.known(targets)
    if given.unknown is not None:
        known = known & ~torch.as_tensor(given.unknown, device="cpu")
    if rule.kind in ("default", "masks", "seed") and (given.masks or given.split is not None):
        masks, notes = _own(path, given, rows, rule, task.level.unit)
    elif rule.kind == "masks":
        raise ConfigError(f"split is 'masks', and {path} has none: train_mask and so on")
    elif rule.kind == "column":
        masks = _of_numbers(_read(path, given, "split", rule.column))
        notes = f"Split: column {rule.column}."
    elif rule.kind == "time":
        time = given.time if given.time is not None else _read(path, given, "time", rule.column)
        masks = _by_time(torch.as_tensor(time, device="cpu"), known, rule.shares)
        notes = f"Split by {rule.column}: the earliest {_percent(rule)}."
    elif rule.kind == "ratio":
        masks = _by_share(targets, known, task, rule)
        notes = f"Split drawn with seed {rule.seed}: {_percent(rule)}."
    else:
        place = known.nonzero().view(-1)
        _check(path, task, targets, place, "drawn")
        drawn, how = drawn_masks(targets[place], task, rule.seed)
        masks = _spread(drawn, place, rows)
        notes = f"Split drawn with seed {rule.seed}: {how}."
    missing = rows - int(known.sum())
    if missing:
        notes += f" {missing} {task.level.unit}s have no target."
    for split, mask in zip(SPLITS, masks, strict=True):
        _check(path, task, targets, mask.nonzero().flatten(), split)
    return masks, notes


def _check(path: Path, task: Task, targets: Tensor, rows: Tensor, split: str) -> None:
    try:
        task.check(targets, rows, None, split)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error


def _own(path: Path, given: Given, rows: int, rule: SplitRule, unit: str) -> tuple[Masks, str]:
    if given.split is not None:
        if rule.kind == "seed":
            raise ConfigError(f"split is {rule.seed}: {path.name} has a split of its own")
        return _of_numbers(given.split), "Split: the file's own."
    if len(given.masks) < len(SPLITS):
        names = ", ".join(f"{name}_mask" for name in given.masks)
        raise FileFormatError(f"{path} has {names}: all three or none")
    masks = [torch.as_tensor(given.masks[name], device="cpu").bool() for name in SPLITS]
    several = masks[0].dim() == 2 and masks[0].size(0) == rows and masks[0].size(1) > 0
    if several and all(mask.shape == masks[0].shape for mask in masks):
        columns = masks[0].size(1)
        if rule.seed >= columns:
            raise ConfigError(f"split is {rule.seed}, and masks of {path.name} have {columns}")
        chosen = [mask[:, rule.seed] for mask in masks]
        return (chosen[0], chosen[1], chosen[2]), f"Split {rule.seed} of {columns} of the file."
    if any(mask.shape != (rows,) for mask in masks):
        raise FileFormatError(f"{path}: masks are one value per {unit}, [{rows}]")
    if rule.kind == "seed":
        raise ConfigError(f"split is {rule.seed}: {path.name} has a split of its own")
    return (masks[0], masks[1], masks[2]), "Split: the file's own."


def _read(path: Path, given: Given, kind: str, column: str) -> Any:
    if kind not in given.columns:
        raise ConfigError(f"split names the column {column!r}, and {path} has no columns")
    return given.columns[kind](column)


def _of_numbers(numbers: Any) -> Masks:
    split = torch.as_tensor(numbers, device="cpu")
    return split == 0, split == 1, split == 2


def _by_time(time: Tensor, known: Tensor, shares: tuple[float, float, float]) -> Masks:
    """The earliest rows train, the latest test; rows of one time stay together."""
    place = known.nonzero().view(-1)
    order = place[torch.argsort(time[place], stable=True)]
    ends = []
    for share in (shares[0], shares[0] + shares[1]):
        end = round(share * len(order))
        while 0 < end < len(order) and time[order[end]] == time[order[end - 1]]:
            end += 1
        ends.append(end)
    return _filled(len(time), order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])


def _by_share(targets: Tensor, known: Tensor, task: Task, rule: SplitRule) -> Masks:
    """Drawn shares of all rows; of every class alike, where there are classes."""
    generator = torch.Generator().manual_seed(rule.seed)
    place = known.nonzero().view(-1)
    strata = task.strata(targets[place])
    groups = [place] if strata is None else [place[strata == s] for s in strata.unique()]
    parts: list[list[Tensor]] = [[], [], []]
    for group in groups:
        order = group[torch.randperm(len(group), generator=generator, device="cpu")]
        first = round(rule.shares[0] * len(order))
        second = first + round(rule.shares[1] * len(order))
        if rule.shares[2] == 0:
            second = len(order)
        cuts = order[:first], order[first:second], order[second:]
        for part, own in zip(parts, cuts, strict=True):
            part.append(own)
    train, val, test = (torch.cat(part) for part in parts)
    return _filled(len(targets), train, val, test)


def _filled(rows: int, *parts: Tensor) -> Masks:
    train, val, test = (
        torch.zeros(rows, dtype=torch.bool, device="cpu").index_fill(0, part, True)
        for part in parts
    )
    return train, val, test


def _spread(masks: Masks, place: Tensor, rows: int) -> Masks:
    return _filled(rows, *(place[mask] for mask in masks))


def _percent(rule: SplitRule) -> str:
    train, val, test = (f"{100 * share:g} %" for share in rule.shares)
    return f"{train} train, {val} validate, {test} test"
