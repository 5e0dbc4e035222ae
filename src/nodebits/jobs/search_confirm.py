"""Whether a bit table keeps what was promised: packed models of several seeds, on validation.

A search takes what luck offers: of many tables, the ones that look best on a few validation rows
are also those that were lucky there. So a table is chosen only when models trained with it, each
from a float model of its own, lose no more than allowed on average, a standard error included.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.jobs.experiment import Experiment, Trained
from nodebits.jobs.search_config import SearchConfig
from nodebits.methods import make_config
from nodebits.tasks import Metric
from nodebits.train import Recipe, mean_and_std
from nodebits.train.evaluate import forward_of

# A first seed that misses by more than this many standard errors needs no second.
_HOPELESS = 2.0


@dataclass(frozen=True)
class Confirmation:
    """What packed models with one table lose.

    Attributes:
        seeds: Seeds of float and quantized training; fewer than asked for where the first was
            enough to tell.
        float_val: Validation metric of the float model, per seed.
        float_test: Likewise on test, which nothing was chosen by.
        val: Validation metric of the packed model, per seed.
        test: Likewise on test.
        val_loss: Validation loss of the packed model, per seed.
        drop: Mean loss of the validation metric, in points; percent of float's where it is no
            share.
        error: Standard error of ``drop``: of the validation rows, or between seeds, if larger.
        allowed: Points that may be lost.
    """

    seeds: list[int]
    float_val: list[float]
    float_test: list[float]
    val: list[float]
    test: list[float]
    val_loss: list[float]
    drop: float
    error: float
    allowed: float

    @property
    def bound(self) -> float:
        """Drop with its standard error, in points."""
        return self.drop + self.error

    @property
    def holds(self) -> bool:
        """Whether the drop, its standard error included, is within what is allowed."""
        return self.bound <= self.allowed + 1e-9

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, with means and standard deviations over seeds."""
        names = ("float_val", "float_test", "val", "test")
        summary = {
            name: dict(zip(("mean", "std"), mean_and_std(getattr(self, name)), strict=True))
            for name in names
        }
        return {**asdict(self), "holds": self.holds, "summary": summary}


class Confirmer:
    """Trains float models once per seed, and a quantized one per seed and table.

    Args:
        config: Settings of the search.
        recipe: Of model and data set.
        experiment: Data, split and architecture.
        teacher: The float model of the search, that of the first seed.
        work: Folder of checkpoints: an interrupted confirmation goes on from there.
    """

    def __init__(
        self,
        config: SearchConfig,
        recipe: Recipe,
        experiment: Experiment,
        teacher: Trained,
        work: Path,
    ) -> None:
        self.config, self.recipe, self.experiment, self.work = config, recipe, experiment, work
        self.interrupted = False
        self._teachers = {config.seed: teacher}

    def confirm(self, table: dict[str, int | list[int]]) -> Confirmation | None:
        """Trains, packs and measures a table; None where Ctrl-C came first."""
        config = self.config
        seeds: list[int] = []
        teachers: list[Trained] = []
        logits: list[Tensor] = []
        for seed in range(config.seed, config.seed + config.confirm_seeds):
            teacher = self._teacher(seed)
            packed = None if teacher is None else self._packed(teacher, table, seed)
            if teacher is None or packed is None:
                self.interrupted = True
                return None
            seeds.append(seed)
            teachers.append(teacher)
            logits.append(packed)
            so_far = self._measured(seeds, teachers, logits)
            if len(seeds) == 1 and so_far.drop - _HOPELESS * so_far.error > config.max_drop:
                return so_far
        return so_far

    def _teacher(self, seed: int) -> Trained | None:
        if seed not in self._teachers:
            fit = self.config.float_fit(self.recipe, seed)
            made = self.experiment.train_float(fit, self.work / f"float-{seed}.checkpoint")
            if made.interrupted:
                return None
            self._teachers[seed] = made
        return self._teachers[seed]

    def _packed(
        self, teacher: Trained, table: dict[str, int | list[int]], seed: int
    ) -> Tensor | None:
        """Logits of the packed model on all rows."""
        config = self.config
        trains = config.fine_tune > 0
        options = config.options("qat" if trains else "ptq")
        key = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]
        quantized = self.experiment.quantize(
            teacher,
            make_config(config.method, 8, overrides=table, **options),
            config.tuning(self.recipe, seed),
            warm_start=True,
            train=trains,
            checkpoint=self.work / f"{key}-{seed}.checkpoint",
        )
        if quantized.interrupted:
            return None
        packed = self.experiment.convert(quantized.model)
        return self.experiment.problem.logits(forward_of(packed))

    def _measured(
        self, seeds: list[int], teachers: list[Trained], logits: list[Tensor]
    ) -> Confirmation:
        problem = self.experiment.problem
        rows, labels, task = problem.indices["val"], problem.split_labels("val"), problem.task
        found = {
            split: [
                task.measure(one[problem.indices[split]], problem.split_labels(split))
                for one in logits
            ]
            for split in ("val", "test")
        }
        packed, floats = (
            torch.stack([task.metric.rows(one[rows], labels) for one in outputs])
            for outputs in (logits, [teacher.logits for teacher in teachers])
        )
        drop, error = drop_and_error(floats, packed, task.metric)
        return Confirmation(
            seeds=list(seeds),
            float_val=[t.val.value for t in teachers],
            float_test=[t.test.value for t in teachers],
            val=[m.value for m in found["val"]],
            test=[m.value for m in found["test"]],
            val_loss=[m.loss for m in found["val"]],
            drop=drop,
            error=error,
            allowed=self.config.max_drop,
        )


def drop_and_error(before: Tensor, after: Tensor, metric: Metric) -> tuple[float, float]:
    """Mean loss of a metric and its standard error, in points.

    Both models are asked about the same rows, so that only rows count on which they differ.

    Args:
        before: float ``[seeds, rows]``, what every row adds to the metric of the float model.
        after: Likewise of the packed model.
        metric: Of the task.
    """
    sign, points = metric.score(1.0), metric.points(float(before.double().mean()))
    lost = sign * (before - after).double()
    per_row, per_seed = lost.mean(0), lost.mean(1)
    error = per_row.std() / per_row.numel() ** 0.5 if per_row.numel() > 1 else lost.new_zeros(())
    if per_seed.numel() > 1:
        error = torch.maximum(error, per_seed.std() / per_seed.numel() ** 0.5)
    return points * float(lost.mean()), points * float(error)
