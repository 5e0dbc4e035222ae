"""What a task is, and the registry of tasks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, LabelError, UnknownNameError
from nodebits.core.registry import TASKS
from nodebits.tasks.levels import Level, level_of
from nodebits.tasks.losses import Loss
from nodebits.tasks.metrics import Metric, Metrics


class Task(ABC):
    """What is predicted, at a level. Derive in one file, decorate with :func:`register_task`.

    A class is a kind of targets, such as classes or numbers; a task is a kind at a level. Its first
    docstring line is what ``nodebits tasks`` shows.

    Attributes:
        name: Of the registry.
        level: What a prediction is about.
        metrics: What models can be measured and selected by, the usual one first.
        losses: What they can be trained on, the usual one first.
        metric: The chosen one.
        criterion: Likewise, a loss by name.
        class_weight: Weights of classes in the loss, float32; None where all count alike.
        takes: Targets of one row, in words.
        output_name: What the columns of a model's outputs are.
        predicts: What predictions are, in words.
        queries: Whether rows are asked about together, so that targets hold the number of a query.
    """

    queries: ClassVar[bool] = False
    metrics: ClassVar[Mapping[str, Metric]]
    losses: ClassVar[Mapping[str, Loss]]
    takes: ClassVar[str]
    output_name: ClassVar[str]
    predicts: ClassVar[str]

    def __init__(self, name: str, level: Level) -> None:
        self.name, self.level = name, level
        self.metric: Metric = next(iter(self.metrics.values()))
        self.criterion: Loss = next(iter(self.losses.values()))
        self.class_weight: Tensor | None = None
        self._balanced = False

    @property
    def loss_name(self) -> str:
        """The loss, in words."""
        return self.criterion.title

    def find_metric(self, name: str) -> Metric:
        """The metric of a name.

        Raises:
            UnknownNameError: This task has none of that name.
        """
        if name in self.metrics:
            return self.metrics[name]
        raise UnknownNameError.for_name(f"metric of task {self.name!r}", name, self.metrics)

    def using(
        self,
        loss: str | Callable[[Tensor, Tensor], Tensor] | None = None,
        metric: str | Metric | Callable[[Tensor, Tensor], Any] | None = None,
        class_weight: Any = None,
    ) -> Task:
        """The same task with another loss, metric, or weights of classes.

        Args:
            loss: A name of ``losses``, or a callable of outputs ``[N, C]`` and targets that gives a
                scalar. Where targets may be unknown (NaN), a callable gets known values alone.
            metric: A name of ``metrics``, a :class:`Metric`, or a callable of outputs and targets
                that gives a number of which more is better (else pass a ``Metric``).
            class_weight: A weight per class, ``"balanced"`` for weights against their share of
                training rows, or None. Of labels it weighs the ones against the zeros.

        Raises:
            UnknownNameError: There is no such loss or metric for this task.
            ConfigError: The loss takes no weights, or an argument is of another type.
        """
        made = copy.copy(self)
        if loss is not None:
            made.criterion = self._loss_of(loss)
        if metric is not None:
            made.metric = self._metric_of(metric)
        if class_weight is not None:
            if not made.criterion.weighted:
                raise ConfigError(
                    f"class_weight is given, but the loss of task {self.name!r} "
                    f"({made.criterion.title}) takes none"
                )
            made._balanced = isinstance(class_weight, str) and class_weight == "balanced"
            made.class_weight = None if made._balanced else _weights(class_weight)
        return made

    def fitted(self, targets: Tensor) -> Task:
        """The task as these training targets make it: balanced weights are known then."""
        if self.class_weight is not None and self.class_weight.numel() != self._weight_count(
            targets
        ):
            raise ConfigError(
                f"class_weight has {self.class_weight.numel()} weights for "
                f"{self._weight_count(targets)} {self.output_name}"
            )
        if not self._balanced:
            return self
        made = copy.copy(self)
        made.class_weight, made._balanced = self.balance(targets), False
        return made

    def _weight_count(self, targets: Tensor) -> int:
        return self.outputs(targets)

    def balance(self, targets: Tensor) -> Tensor:
        """Weights of classes against their share of these targets, float32."""
        raise ConfigError(f"task {self.name!r} has no classes to balance")

    def describe(self) -> str:
        """What was chosen other than usual, as text; empty where nothing was."""
        usual = type(self)(self.name, self.level)
        parts = []
        if self.criterion != usual.criterion:
            parts.append(f"loss={self.criterion.name}")
        if self.metric != usual.metric:
            parts.append(f"metric={self.metric.name}")
        if self._balanced or self.class_weight is not None:
            shown = "balanced" if self.class_weight is None else self.class_weight.tolist()
            parts.append(f"class_weight={shown}")
        return " ".join(parts)

    def _loss_of(self, given: Any) -> Loss:
        if isinstance(given, str):
            if given not in self.losses:
                raise UnknownNameError.for_name(f"loss of task {self.name!r}", given, self.losses)
            return self.losses[given]
        if not callable(given):
            raise ConfigError(f"loss is a {type(given).__name__}: pass a name or a callable")
        called = _name_of(given)

        def function(outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
            del weight
            if targets.is_floating_point() and bool((unknown := targets.isnan()).any()):
                outputs, targets = outputs[~unknown], targets[~unknown]
            found = given(outputs, targets)
            if not isinstance(found, Tensor) or found.numel() != 1:
                shown = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ConfigError(f"loss {called!r} returned {shown}: it must be a scalar tensor")
            return found.reshape(())

        return Loss(called, called, function)

    def _metric_of(self, given: Any) -> Metric:
        if isinstance(given, Metric):
            return given
        if isinstance(given, str):
            return self.find_metric(given)
        if not callable(given):
            raise ConfigError(
                f"metric is a {type(given).__name__}: pass a name, a callable or a Metric"
            )
        called = _name_of(given)
        better = getattr(given, "higher_is_better", True) is not False

        def figure(outputs: Tensor, targets: Tensor) -> Any:
            try:
                return given(outputs, targets)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"metric {called!r} failed ({error}): it is called with outputs "
                    f"{list(outputs.shape)} and targets {list(targets.shape)}"
                ) from error

        return Metric(called, called, figure=figure, higher_is_better=better, share=False)

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar; ``outputs`` float ``[N, C]``."""
        return self.criterion.function(outputs, targets, self.class_weight)

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

    def without_examples(self, targets: Tensor, train: Tensor) -> list[int]:
        """Classes of all rows ``[N, ...]`` that no training row ``train`` is an example of."""
        del targets, train
        return []

    def known(self, targets: Tensor) -> Tensor:
        """Which rows ``[N]`` have a target at all, bool."""
        if targets.is_floating_point():
            return ~targets.view(len(targets), -1).isnan().all(1)
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)

    def of_links(self, y: Tensor) -> Tensor:
        """Targets of links, by what their edges are labelled with; zeros are of no link."""
        return y

    def is_absent(self, targets: Tensor) -> Tensor:
        """Which rows ``[N]`` are of pairs that are no link, bool."""
        return (targets.view(len(targets), -1) == 0).all(1)

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


def register_task(*names: str) -> Callable[[T], T]:
    """Class decorator: makes a kind known as the task of each name.

    Args:
        *names: Each begins with its level, as ``node-regression``.

    Raises:
        ConfigError: A name begins with no level.
    """

    def decorate(cls: T) -> T:
        for name in names:
            TASKS.add(name, cls(name, level_of(name)))
        return cls

    return decorate


def find_task(name: str | Task) -> Task:
    """Returns the task of a name; a task is itself.

    Raises:
        UnknownNameError: There is no such task.
    """
    if isinstance(name, Task):
        return name
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


def _weights(given: Any) -> Tensor:
    try:
        found = torch.as_tensor(given, dtype=torch.float32, device="cpu").flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"class_weight is {given!r}: pass a weight per class, or 'balanced'"
        ) from error
    if found.numel() == 0 or not bool((torch.isfinite(found) & (found >= 0)).all()):
        raise ConfigError(f"class_weight is {found.tolist()}: weights are finite, 0 or more")
    return found


def _name_of(given: Any) -> str:
    return getattr(given, "__name__", type(given).__name__)
