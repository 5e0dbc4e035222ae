"""What a task is measured by, and what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """A figure of predictions.

    Attributes:
        name: As files and attributes have it, such as ``accuracy`` or ``mae``.
        title: As people read it.
        rows: What every row adds: outputs ``[N, C]`` and targets ``[N, ...]`` -> ``[N]``, whose
            mean is the figure. It also says how sure a difference of two models is.
        higher_is_better: Its direction.
        share: Whether it lies between 0 and 1 and is shown in percent.
    """

    name: str
    title: str
    rows: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool = True
    share: bool = True

    def value(self, outputs: Tensor, targets: Tensor) -> float:
        """The figure; NaN of no rows."""
        return float(self.rows(outputs, targets).double().mean())

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
