"""What a task is measured by, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, LabelError

PerRow = Callable[[Tensor, Tensor], Tensor]
Figure = Callable[[Tensor, Tensor], Any]
# Parts that are left out in turn, to see how much a figure moves.
_PARTS = 20


@dataclass(frozen=True)
class Metric:
    """A figure of predictions.

    Attributes:
        name: As files and attributes have it, such as ``accuracy`` or ``mae``.
        title: As people read it.
        per_row: What every row adds: outputs ``[N, C]`` and targets ``[N, ...]`` -> ``[N]``, whose
            mean is the figure. It also says how sure a difference of two models is. None where
            ``figure`` is given, and rows are what leaving parts out says.
        figure: Outputs and targets -> the figure, of metrics that are no mean over rows.
        higher_is_better: Its direction.
        share: Whether it lies between 0 and 1 and is shown in percent.
        undefined: Targets -> why the figure does not exist for them, or an empty string.
    """

    name: str
    title: str
    per_row: PerRow | None = None
    figure: Figure | None = None
    higher_is_better: bool = True
    share: bool = True
    undefined: Callable[[Tensor], str] | None = None

    def __post_init__(self) -> None:
        """Refuses a metric of nothing.

        Raises:
            ConfigError: It has neither ``per_row`` nor ``figure``.
        """
        if self.per_row is None and self.figure is None:
            raise ConfigError(f"metric {self.name!r} needs per_row or figure")

    def lacks(self, targets: Tensor) -> str:
        """Why there is no figure for these targets; an empty string where there is one."""
        return self.undefined(targets) if self.undefined is not None and len(targets) else ""

    def value(self, outputs: Tensor, targets: Tensor) -> float:
        """The figure; NaN of no rows.

        Raises:
            LabelError: It does not exist for these targets.
            ConfigError: A callable of the user's gave no number.
        """
        if targets.size(0) == 0:
            return float("nan")
        reason = self.lacks(targets)
        if reason:
            raise LabelError(f"{self.title} does not exist: {reason}")
        if self.figure is None:
            assert self.per_row is not None
            return float(self.per_row(outputs, targets).double().mean())
        found = self.figure(outputs, targets)
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        try:
            return float(found)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"metric {self.name!r} returned {type(found).__name__}: it must be one number"
            ) from error

    def rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What every row adds, ``[N]``; the mean is the figure.

        Of a metric that is no mean it is the influence of the part that a row is in: the figure
        without it says how much. The spread over rows gives the figure's standard error.
        """
        if self.per_row is not None and self.figure is None:
            return self.per_row(outputs, targets)
        whole = self.value(outputs, targets)
        if self.per_row is not None:
            found = self.per_row(outputs, targets).double()
            return found - found.mean() + whole
        count = targets.size(0)
        part = torch.arange(count, device=targets.device) % min(_PARTS, count)
        moved = torch.zeros(count, dtype=torch.float64, device=targets.device)
        parts = int(part.max()) + 1
        for number in range(parts if count > 1 else 0):
            left = part != number
            if self.lacks(targets[left]):
                continue  # without this part there is no figure to compare
            influence = (parts - 1) * (whole - self.value(outputs[left], targets[left]))
            moved[~left] = influence * math.sqrt(count / parts)
        return moved - moved.mean() + whole

    def score(self, value: float) -> float:
        """A number that is larger where the figure is better, and back."""
        return value if self.higher_is_better else -value

    def points(self, before: float) -> float:
        """Points of a difference of 1: of a share percent, else percent of ``before``."""
        return 100.0 if self.share or before == 0.0 else 100.0 / abs(before)

    def after_losing(self, before: float, points: float) -> float:
        """The figure that has lost so many points since ``before``."""
        return self.score(self.score(before) - points / self.points(before))

    def to_json(self) -> dict[str, Any]:
        """What a reader of a report needs to know."""
        return {
            "name": self.name,
            "title": self.title,
            "higher_is_better": self.higher_is_better,
            "share": self.share,
        }


@dataclass(frozen=True)
class Metrics:
    """What was measured on some rows.

    The figure is also an attribute of its metric's name: ``metrics.accuracy``.

    Attributes:
        name: Of the metric.
        value: The figure.
        loss: Mean loss, such as cross entropy.
        count: Number of rows.
    """

    name: str
    value: float
    loss: float
    count: int

    def __getattr__(self, name: str) -> float:
        """The figure, asked for by its metric's name."""
        own = vars(self)
        if name != own.get("name"):
            raise AttributeError(f"these metrics hold {own.get('name')}, loss and count: no {name}")
        return float(own["value"])

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; the figure is called by its metric's name."""
        return {self.name: self.value, "loss": self.loss, "count": self.count}
