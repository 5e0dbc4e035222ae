"""What a task is, and the registry of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from nodebits.core.errors import LabelError
from nodebits.core.registry import TASKS
from nodebits.tasks.metrics import Metric, Metrics


@dataclass(frozen=True)
class Level:
    """What a prediction is about.

    Attributes:
        unit: One of them, such as ``node``; recipes of models are by it.
        many_graphs: Whether data are many graphs, in batches, instead of one.
        hint: What a model whose outputs have other rows may lack.
    """

    unit: str
    many_graphs: bool
    hint: str = ""


NODE = Level("node", many_graphs=False)
GRAPH = Level("graph", many_graphs=True, hint="pool the nodes of each graph by the batch vector")


class Task(ABC):
    """What is predicted. Derive in one file, decorate with :func:`register_task`.

    A task holds no state. Its first docstring line is what ``nodebits tasks`` shows.

    Attributes:
        name: Of the registry.
        level: What a prediction is about.
        metric: What models are measured and selected by.
        takes: Targets of one row, in words.
        loss_name: The loss, in words.
        output_name: What the columns of a model's outputs are.
        predicts: What predictions are, in words.
    """

    name: ClassVar[str]
    level: ClassVar[Level]
    metric: ClassVar[Metric]
    takes: ClassVar[str]
    loss_name: ClassVar[str]
    output_name: ClassVar[str]
    predicts: ClassVar[str]

    @abstractmethod
    def targets(self, y: Any, rows: int, place: str) -> Tensor:
        """Returns the targets of ``rows`` rows in the form that all else here takes.

        Args:
            y: As data have it: a tensor, a number, or a list.
            rows: Number of nodes, or 1 for one graph.
            place: Whose they are, for errors, such as ``graph 6``.

        Returns:
            ``[rows, ...]``. Rows outside of all splits may hold anything.

        Raises:
            LabelError: They are missing, or of another form.
        """

    @abstractmethod
    def check(self, targets: Tensor, rows: Tensor, outputs: int | None, split: str) -> None:
        """Checks the targets of a split.

        Args:
            targets: Of all rows, as :meth:`targets` made them.
            rows: Numbers of the split's rows.
            outputs: Width of the model's output; ``None`` where it is not known yet.
            split: For errors.

        Raises:
            LabelError: Names the first row whose target cannot be learned, or not by this model.
        """

    @abstractmethod
    def outputs(self, targets: Tensor) -> int:
        """Width of a model's output for these targets."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar; ``outputs`` float ``[N, C]``."""

    @abstractmethod
    def imitation(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance of outputs to a teacher's, both ``[N, C]``, a scalar."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What a row is said to be, such as a class; ``[N]`` or ``[N, C]``."""

    @abstractmethod
    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """Columns of a file of predictions by name, ``[N]`` each."""

    def warn(self, targets: Tensor) -> None:
        """Warns of targets of training rows ``[N, ...]`` that models will hardly reach."""
        del targets

    def suits(self, y: Tensor) -> bool:
        """Whether ``y`` ``[rows, ...]`` says by its type and shape that this task is meant."""
        del y
        return False

    def strata(self, targets: Tensor) -> Tensor | None:
        """Classes ``[N]`` that every split should have its share of; ``None`` without."""
        del targets
        return None

    def agreement(self, first: Tensor, second: Tensor) -> float:
        """Share of rows for which two outputs ``[N, C]`` predict the same; NaN of no rows."""
        if first.size(0) == 0:
            return float("nan")
        same = self.predictions(first) == self.predictions(second)
        return float(same.view(len(same), -1).all(1).double().mean())

    def measure(self, outputs: Tensor, targets: Tensor) -> Metrics:
        """Metric and loss of outputs ``[N, C]``; NaN of no rows."""
        rows = targets.size(0)
        if rows == 0:
            return Metrics(self.metric.name, float("nan"), float("nan"), 0)
        value, loss = self.metric.value(outputs, targets), self.loss(outputs, targets)
        return Metrics(self.metric.name, value, float(loss), rows)

    def quality(self, metrics: Metrics, select: str = "metric") -> tuple[float, float]:
        """What is larger for a better model: the metric, ties by the loss, or the reverse."""
        quality = (self.metric.score(metrics.value), -metrics.loss)
        return quality[::-1] if select == "loss" else quality


T = TypeVar("T", bound=type[Task])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator: makes the task known under ``name``."""

    def decorate(cls: T) -> T:
        cls.name = name
        TASKS.add(name, cls())
        return cls

    return decorate


def find_task(name: str) -> Task:
    """Returns the task of a name.

    Raises:
        UnknownNameError: There is no such task.
    """
    task: Task = TASKS.get(name)
    return task


def task_names(level: Level | None = None) -> list[str]:
    """Names of all tasks, or of those of a level."""
    return [n for n in TASKS.names() if level is None or find_task(n).level == level]


def suggested_task(y: Any, level: Level, place: str) -> str:
    """Returns the task of a level that targets mean by their type and shape.

    Args:
        y: Targets of all rows.
        level: Of the data.
        place: Whose they are, for errors.

    Raises:
        LabelError: None takes them, or several do.
    """
    tasks = [find_task(name) for name in task_names(level)]
    y = y if isinstance(y, Tensor) else torch.as_tensor(y, device="cpu")
    fits = [task.name for task in tasks if task.suits(y)]
    if len(fits) == 1:
        return fits[0]
    shown = ", ".join(f"{task.name} takes {task.takes} per {level.unit}" for task in tasks)
    which = f"{' and '.join(fits)} may be meant" if fits else "it is not clear what is meant"
    raise LabelError(
        f"{place}: y is {y.dtype} {list(y.shape)}: {which}; change y, or name the task ({shown})"
    )
