"""What a checkpoint says, compared with the run that it is to continue.

Optimizers and schedules take over whatever they are given and fail later, or never: so keys, types
and shapes are compared with their own before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import (
    Integer,
    ListOf,
    Number,
    Object,
    Optional,
    Options,
    Table,
    check_fields,
    check_object,
    shown,
)
from nodebits.tasks import Task

# What moves while a schedule runs; the rest follows from the settings.
_MOVING = ("last_epoch", "_step_count", "_last_lr")
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


@dataclass(frozen=True)
class _Tensor:
    """A tensor."""

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, Tensor) else "a tensor"


@dataclass(frozen=True)
class _Measured:
    """A float that is not NaN: infinite before anything was measured."""

    def fault(self, value: Any) -> str | None:
        good = isinstance(value, float) and not math.isnan(value)
        return None if good else "a number"


_OBJECT = Object()
_STATE: Options = {
    "epoch": Integer(1),
    "model": _OBJECT,
    "optimizer": Table({"state": _OBJECT, "param_groups": ListOf(_OBJECT)}),
    "schedule": Optional(_OBJECT),
    "generator": _Tensor(),
    "torch_rng": _Tensor(),
    "seconds": Number(0.0),
}


def curves(task: Task) -> tuple[str, ...]:
    """Names of what is kept of every epoch."""
    return "loss", "val_loss", f"val_{task.metric.name}"


def _measured_by(task: Task) -> Options:
    best: Options = {"epoch": Integer(-1), "loss": _Measured(), "state": _OBJECT}
    return {
        "best": Table({**best, task.metric.name: _Measured()}),
        "history": Table({name: ListOf(Number()) for name in curves(task)}),
    }


def check_state(
    state: dict[str, Any], optimizer: Optimizer, schedule: LRScheduler | None, task: Task
) -> None:
    """Checks all but Adam's moments, and what models and generators check themselves.

    Args:
        state: As ``Loop.state`` gives it.
        optimizer: Of the run.
        schedule: Of the run.
        task: Of the run.

    Raises:
        FileFormatError: Names the field.
    """
    check_fields(state, {**_STATE, **_measured_by(task)}, "state")
    epoch = state["epoch"]
    for name, curve in state["history"].items():
        if len(curve) != epoch:
            raise FileFormatError(f"state.history.{name} has {len(curve)} epochs of {epoch}")
    if state["best"]["epoch"] >= epoch:
        raise FileFormatError(f"state.best.epoch is {state['best']['epoch']} of {epoch} epochs")
    for where, tensors in (("model", state["model"]), ("best.state", state["best"]["state"])):
        if not all(isinstance(name, str) for name in tensors):
            raise FileFormatError(f"state.{where} has keys that are no names")
    _take_loop(state["optimizer"]["param_groups"], optimizer)
    _check_groups(state["optimizer"]["param_groups"], optimizer)
    own = None if schedule is None else schedule.state_dict()
    if (own is None) != (state["schedule"] is None):
        raise FileFormatError("state.schedule is not that of the settings")
    if own is not None:
        _check_like(state["schedule"], own, "state.schedule")
        for key, value in own.items():
            found = state["schedule"][key]
            if key not in _MOVING and not isinstance(value, bool) and found != value:
                raise FileFormatError(
                    f"state.schedule.{key} is {shown(found)}, the settings say {shown(value)}"
                )


def _take_loop(groups: list[dict[str, Any]], optimizer: Optimizer) -> None:
    """Gives older runs, which left to torch how Adam walks over parameters, the loop of this one.

    It changes no bit.
    """
    for group, mine in zip(groups, optimizer.param_groups, strict=False):
        if group.get("foreach", "") is None:
            group["foreach"] = mine["foreach"]


def _check_groups(groups: list[dict[str, Any]], optimizer: Optimizer) -> None:
    own = optimizer.state_dict()["param_groups"]
    _check_like(groups, own, "state.optimizer.param_groups")
    for number, (group, mine) in enumerate(zip(groups, own, strict=True)):
        for key, value in mine.items():
            # A schedule changes the rate alone.
            if key != "lr" and group[key] != value:
                raise FileFormatError(
                    f"state.optimizer.param_groups[{number}].{key} is {shown(group[key])}, the "
                    f"settings say {shown(value)}"
                )


def check_moments(found: dict[Any, Any], optimizer: Optimizer) -> None:
    """Checks Adam's moments; the model has its state by now, which may say its shapes.

    Args:
        found: ``state.optimizer.state``.
        optimizer: Of the run.

    Raises:
        FileFormatError: Names the field.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, entry in found.items():
        where = f"state.optimizer.state.{key}"
        if type(key) is not int or not 0 <= key < len(parameters):
            raise FileFormatError(f"{where}: there are {len(parameters)} parameters")
        if check_object(entry, where).keys() != _ADAM:
            raise FileFormatError(f"{where} must have {', '.join(sorted(_ADAM))}")
        for name, value in entry.items():
            shape = torch.Size() if name == "step" else parameters[key].shape
            good = isinstance(value, Tensor) and value.is_floating_point()
            if not good or value.shape != shape:
                raise FileFormatError(f"{where}.{name} must be a float tensor {list(shape)}")
        if not 0 <= float(entry["step"]) < math.inf:
            raise FileFormatError(f"{where}.step is {float(entry['step'])}")


def _check_like(found: Any, own: Any, where: str) -> None:
    """Checks types, keys and lengths against those of ``own``; numbers must be finite."""
    if type(found) is not type(own):
        raise FileFormatError(f"{where} is {shown(found)}: it must be a {type(own).__name__}")
    if isinstance(own, float) and not math.isfinite(found):
        raise FileFormatError(f"{where} is {found}: it must be finite")
    if isinstance(own, dict):
        if found.keys() != own.keys():
            raise FileFormatError(f"{where} must have the keys {', '.join(map(str, own))}")
        for key, value in own.items():
            _check_like(found[key], value, f"{where}.{key}")
    if isinstance(own, list | tuple):
        if len(found) != len(own):
            raise FileFormatError(f"{where} has {len(found)} entries, not {len(own)}")
        for number, value in enumerate(own):
            _check_like(found[number], value, f"{where}[{number}]")
