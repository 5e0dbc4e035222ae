"""A search: asks a strategy, measures, remembers; resumable, and parallel where asked to be."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.file_fields import (
    BITS,
    Choice,
    Integer,
    ListOf,
    Number,
    Object,
    Optional,
    Options,
    Text,
    check_fields,
    check_object,
    shown,
)
from nodebits.core.files import write_atomically
from nodebits.core.strict_json import read_json
from nodebits.graph import constant_inputs
from nodebits.search.costs import CostModel
from nodebits.search.evaluator import Evaluator
from nodebits.search.pareto import pareto_front
from nodebits.search.space import Point, Space
from nodebits.search.strategies import Observation, make_strategy
from nodebits.tasks import Metric, Metrics
from nodebits.train import Problem

STUDY_VERSION = 3
_READABLE = (1, 2, 3)  # 1: without the loss of trials; 2: their score was an accuracy
_FIELDS: Options = {
    "version": Choice(_READABLE),
    "settings": Object(),
    "slots": ListOf(Text()),
    "context": Object(),
    "trials": ListOf(Object()),
}
_TRIAL: Options = {
    "point": ListOf(BITS),
    "score": Number(),
    "bytes": Integer(0, 1 << 60),
    "bits": Number(0.0),
    "latency": Optional(Number(0.0)),
    "loss": Optional(Number()),
}


@dataclass(frozen=True)
class StudySettings:
    """What a search is told.

    Attributes:
        objective: ``bytes``, ``bits`` or ``latency``.
        strategy: One of ``strategy_names()``.
        target: Validation score that a configuration must reach: the metric, negative where less of
            it is better.
        budget: Configurations to measure.
        batch: Configurations per round (N_mea).
        seed: Of the strategy.
    """

    objective: str
    strategy: str
    target: float
    budget: int = 80
    batch: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Rejects values outside their range.

        Raises:
            ConfigError: Names the field.
        """
        for name in ("budget", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Trial:
    """A measured configuration: widths by slot, validation score, costs and validation loss."""

    point: Point
    score: float
    bytes: int
    bits: float
    latency: float | None = None
    loss: float | None = None

    @classmethod
    def of(cls, point: Point, found: Metrics, costs: CostModel, metric: Metric) -> Trial:
        """A point with what was measured on validation, and its costs."""
        latency = None if costs.latency_table is None else costs.of(point, "latency")
        spent = costs.bytes(point), costs.bits(point), latency
        loss = found.loss if math.isfinite(found.loss) else None
        return cls(point, metric.score(found.value), *spent, loss)

    @property
    def quality(self) -> tuple[float, float]:
        """Score, and the loss where it is equal: of few rows, many tables get the same right."""
        return self.score, -math.inf if self.loss is None else -self.loss

    def cost(self, objective: str) -> float:
        """The cost that an objective minimises."""
        value = getattr(self, objective)
        assert value is not None
        return float(value)


@dataclass
class Study:
    """Trials of one search, kept in one file that is never torn.

    Attributes:
        settings: What was asked for.
        slots: Names of the slots, the columns of the points.
        context: Whatever else must be equal for trials to be comparable.
        trials: Measured so far.
        path: File, or None to keep nothing.
    """

    settings: StudySettings
    slots: list[str]
    context: dict[str, Any] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    path: Path | None = None

    def _identity(self) -> dict[str, Any]:
        # A larger budget continues a search; everything else makes it another one.
        settings = {k: v for k, v in asdict(self.settings).items() if k != "budget"}
        return {"settings": settings, "slots": self.slots, "context": self.context}

    def save(self) -> None:
        """Writes the file."""
        if self.path is None:
            return
        content = {
            "version": STUDY_VERSION,
            **self._identity(),
            "trials": [asdict(trial) for trial in self.trials],
        }
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def resume(self) -> int:
        """Takes over the trials of the file; returns how many.

        Raises:
            FileFormatError: If the file is no study, or of a newer version.
            ConfigError: If it belongs to another search.
        """
        if self.path is None or not self.path.exists():
            return 0
        content = check_object(read_json(self.path, "a study"), f"{self.path}: the study")
        version = content.get("version")
        if type(version) is not int or version not in _READABLE:
            raise FileFormatError(
                f"{self.path} has study version {shown(version)}, not {STUDY_VERSION}"
            )
        check_fields(content, _FIELDS, f"{self.path}: study")
        trials = [self._trial(t, number, version) for number, t in enumerate(content["trials"])]
        identity = {name: content[name] for name in ("settings", "slots", "context")}
        own = json.loads(json.dumps(self._identity()))
        if identity != own:
            other = next(k for k in own if identity[k] != own[k])
            raise ConfigError(
                f"{self.path} belongs to another search (its {other} differ): choose another "
                "output folder, or delete the file"
            )
        self.trials = trials
        return len(trials)

    def _trial(self, entry: dict[str, Any], number: int, version: int) -> Trial:
        """A trial of a file of this version."""
        where = f"{self.path}: study.trials[{number}]"
        entry = {"loss": None, **entry}
        if version < 3 and "accuracy" in entry:
            entry["score"] = entry.pop("accuracy")
        check_fields(entry, _TRIAL, where)
        if len(entry["point"]) != len(self.slots):
            raise FileFormatError(
                f"{where}.point has {len(entry['point'])} widths for {len(self.slots)} slots"
            )
        if self.settings.objective == "latency" and entry["latency"] is None:
            raise FileFormatError(f"{where}.latency is null, and the search is for latency")
        return Trial(**{**entry, "point": tuple(entry["point"])})

    def feasible(self) -> list[Trial]:
        """Trials that reach the target."""
        return [t for t in self.trials if t.score >= self.settings.target]

    def best(self) -> Trial | None:
        """The cheapest feasible trial."""
        objective = self.settings.objective
        key = lambda t: (t.cost(objective), *(-q for q in t.quality))  # noqa: E731
        return min(self.feasible(), key=key, default=None)

    def front(self) -> list[Trial]:
        """Trials that no other beats in quality and cost."""
        objective = self.settings.objective
        return pareto_front(self.trials, lambda t: t.cost(objective), lambda t: t.quality)


def run_study(
    study: Study,
    evaluator: Evaluator,
    costs: CostModel,
    *,
    workers: int = 1,
    progress: bool | None = None,
    stop: Callable[[], bool] | None = None,
) -> Study:
    """Measures until the budget is spent; continues what ``study`` holds.

    The first point is the widest one, so that a feasible configuration is known from the start.

    Args:
        study: Settings, and trials of earlier runs.
        evaluator: Measures points, with the space to search.
        costs: Of points.
        workers: Processes that measure; each has its own copy of model and data.
        progress: Show a progress bar; None: on a terminal.
        stop: Asked between rounds; true ends the search early.
    """
    assert evaluator.space is not None
    space, settings = evaluator.space, study.settings
    metric = evaluator.problem.task.metric

    def cost(point: Point) -> float:
        return costs.of(point, settings.objective)

    # Resumed, a search draws anew, so that it does not repeat the candidates of its first rounds.
    strategy = make_strategy(
        settings.strategy, space, cost, settings.target, settings.seed + len(study.trials)
    )
    hidden = None if progress is None else not progress
    done = len(study.trials)
    with (
        _measuring(evaluator, space, workers) as measure,
        tqdm(
            total=settings.budget, initial=done, desc="search", unit="config", disable=hidden
        ) as bar,
    ):
        while len(study.trials) < settings.budget and not (stop is not None and stop()):
            count = min(settings.batch, settings.budget - len(study.trials))
            if study.trials:
                seen = [Observation(t.point, t.score, cost(t.point)) for t in study.trials]
                points = strategy.ask(seen, count)
            else:
                points = [space.uniform(max(space.slots[0].choices))]
            if not points:  # every point of the space was measured
                break
            for point, found in zip(points, measure(points), strict=True):
                study.trials.append(Trial.of(point, found, costs, metric))
            study.save()
            bar.update(len(points))
            best = study.best()
            if best is not None:
                bar.set_postfix(best=f"{best.cost(settings.objective):.4g}")
    return study


Measure = Callable[[Sequence[Point]], list[Metrics]]


@contextmanager
def _measuring(evaluator: Evaluator, space: Space, workers: int) -> Iterator[Measure]:
    if workers <= 1:
        with constant_inputs():
            yield lambda points: [evaluator.point_metrics(point) for point in points]
        return
    context = multiprocessing.get_context("spawn")
    arguments = (evaluator.float_model, evaluator.problem, space)
    with ProcessPoolExecutor(workers, context, _start_worker, arguments) as pool:
        yield lambda points: list(pool.map(_measure_in_worker, points))


_worker: list[Evaluator] = []


def _start_worker(model: nn.Module, problem: Problem, space: Space) -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker.append(Evaluator(model, problem, space))


def _measure_in_worker(point: Point) -> Metrics:
    return _worker[0].point_metrics(point)
