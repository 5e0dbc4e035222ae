"""The training loop: one epoch, the best state so far, and what a checkpoint must hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.distributed import Together, take_from_first_rank
from nodebits.core.errors import ConfigError, FileFormatError, NodebitsError, ShapeError
from nodebits.methods import QuantConfig
from nodebits.models.fit_config import FitConfig
from nodebits.tasks import Metrics, Task
from nodebits.train.errors import DivergedError
from nodebits.train.evaluate import forward_of
from nodebits.train.loss import training_loss
from nodebits.train.optimizer import make_optimizer, make_schedule, warn_untrained
from nodebits.train.problem import Problem, Step
from nodebits.train.resume import check_moments, check_state, curves


@dataclass
class Best:
    """The epoch that validation likes most, and the model's state after it."""

    epoch: int = -1
    metrics: Metrics | None = None
    state: dict[str, Any] = field(default_factory=dict)

    def beaten_by(self, metrics: Metrics, task: Task, select: str) -> bool:
        """Says whether ``metrics`` beat this epoch; a full tie keeps the earlier one."""
        if self.metrics is None:
            return True
        return task.quality(metrics, select) > task.quality(self.metrics, select)


class Loop:
    """Model, optimizer, schedule and history of one run; resumable after any whole epoch."""

    def __init__(
        self,
        model: nn.Module,
        problem: Problem,
        config: FitConfig,
        method: QuantConfig | None,
        teacher: Tensor | None,
    ) -> None:
        """Builds the optimizer and an empty history."""
        self.model, self.problem, self.config, self.method = model, problem, config, method
        self.teacher = teacher
        self.evaluating = _frozen(model)
        self.optimizer = make_optimizer(model, config, method)
        self.schedule = make_schedule(self.optimizer, config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epoch = 0
        self.best = Best()
        self.history: dict[str, list[float]] = {name: [] for name in curves(problem.task)}
        self.seconds = 0.0
        self.device = next(model.parameters()).device
        self._checked = False
        self._stepped = False

    @property
    def finished(self) -> bool:
        """Whether the budget is spent or patience has run out."""
        waited = self.epoch - 1 - self.best.epoch
        # Nothing to wait for while a method's budget lets no epoch be selected.
        patient = self.config.patience == 0 or self.best.epoch < 0
        out_of_patience = not patient and waited >= self.config.patience
        return self.epoch >= self.config.epochs or (self.epoch > 0 and out_of_patience)

    def train_epoch(self, stop: Any) -> bool:
        """Takes the optimizer steps of one epoch.

        Args:
            stop: Called between steps; true abandons the epoch.

        Returns:
            Whether all steps were taken.
        """
        self.model.train()
        for module in self.evaluating:
            module.training = False
        total, count = 0.0, 0
        drawn = self.problem.steps(self.config.batch_size, self.generator)
        steps = Together(drawn, self.device, stop)
        for step in steps:
            total += self._step(step)
            count += 1
        if steps.stopped:
            return False
        if not count:
            raise ConfigError(
                "an epoch has no step: the loader of this rank or of another gave no batch with "
                "labelled nodes"
            )
        # Running statistics are those of each rank's own batches, and what is selected is one.
        take_from_first_rank(self.model.buffers())
        if self.schedule is not None:
            self.schedule.step()
        self.history["loss"].append(total / count)
        return True

    def validate(self) -> Metrics:
        """Measures the validation split, keeps the best admissible state, and ends the epoch."""
        metrics = self.problem.metrics(forward_of(self.model), "val", all_ranks=True)
        if not math.isfinite(metrics.loss):
            raise DivergedError(self._diverged("validation loss", metrics.loss))
        self.history["val_loss"].append(metrics.loss)
        self.history[f"val_{metrics.name}"].append(metrics.value)
        allowed = self.method is None or self.method.admissible(self.model)
        if allowed and self.best.beaten_by(metrics, self.problem.task, self.config.select):
            self.best = Best(self.epoch, metrics, _copy(self.model))
        self.epoch += 1
        return metrics

    def _step(self, step: Step) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        teacher = self.teacher
        if teacher is not None and step.rows is not None:
            if step.rows.numel() != step.labels.size(0):
                raise ConfigError(
                    "teacher_logits needs to know which nodes a batch holds: let the loader give "
                    "n_id, as PyG's NeighborLoader does"
                )
            teacher = teacher[step.rows]
        if not self._checked:
            step.inputs.warn_ignored(self.model)
        logits = step.inputs.apply(self.model)
        if not self._checked:
            self._check(logits, step)
        loss = training_loss(
            self.problem.task, logits, step.labels, step.labelled, teacher, self.config.distill
        )
        if self.method is not None:
            loss = loss + self.method.penalty(self.model)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(self._diverged("training loss", value))
        with step.inputs.scope():  # layers may be run again, for their gradients
            loss.backward()
        if self.epoch == 0 and not self.history["loss"]:
            warn_untrained(self.model)
        self.optimizer.step()
        self._stepped = True
        if self.method is not None:
            self.method.advance(self.model, self.epoch / self.config.epochs)
        return value

    def _check(self, logits: Tensor, step: Step) -> None:
        """Checks the first outputs against labels and teacher, which are known before."""
        self.problem.check_outputs(logits, step.labels.size(0))
        self.problem.check_labels(logits.size(1))
        self.problem.task.warn(self.problem.split_labels("train"))
        if self.teacher is not None and self.teacher.size(1) != logits.size(1):
            columns = self.problem.task.output_name
            raise ShapeError(
                f"teacher_logits has {self.teacher.size(1)} {columns}, the model has "
                f"{logits.size(1)} outputs"
            )
        self._checked = True

    def _diverged(self, what: str, value: float) -> str:
        if self.epoch == 0 and not self._stepped:
            return (
                f"{what} is {value} before the first step of training: the model gives that for "
                "these data. Look at the weights it starts from, and for negative edge weights, "
                "whose degrees have no root"
            )
        return (
            f"{what} became {value} in epoch {self.epoch}; lower the learning rate "
            f"(lr {self.config.lr:g}, quantizer_lr {self.config.quantizer_lr:g})"
        )

    def state(self) -> dict[str, Any]:
        """Returns all that a resumed run needs; only tensors and plain values."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "best": self._best_state(),
            "history": self.history,
            "seconds": self.seconds,
        }

    def _best_state(self) -> dict[str, Any]:
        """The best epoch; the metric is called by its name, and is infinitely bad without one."""
        name, metrics = self.problem.task.metric.name, self.best.metrics
        value = self.problem.task.metric.score(-math.inf) if metrics is None else metrics.value
        loss = math.inf if metrics is None else metrics.loss
        return {"epoch": self.best.epoch, name: value, "loss": loss, "state": self.best.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from ``state``.

        Raises:
            FileFormatError: If it is not that of such a run; the loop cannot be used then.
        """
        task = self.problem.task
        check_state(state, self.optimizer, self.schedule, task)
        kept = state["best"]
        best = Best(kept["epoch"], state=kept["state"])
        if best.epoch >= 0:
            rows = self.problem.indices["val"].numel()
            best.metrics = Metrics(task.metric.name, kept[task.metric.name], kept["loss"], rows)
        try:
            if best.epoch >= 0:  # refused now, not when training is over
                self.model.load_state_dict(best.state)
            self.model.load_state_dict(state["model"])
            check_moments(state["optimizer"]["state"], self.optimizer)
            self.optimizer.load_state_dict(state["optimizer"])
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["torch_rng"])
        except (RuntimeError, ValueError, TypeError, KeyError, NodebitsError) as error:
            raise FileFormatError(f"state: {error}") from error
        self.best, self.epoch = best, state["epoch"]
        self.history, self.seconds = state["history"], state["seconds"]


def _frozen(model: nn.Module) -> list[nn.Module]:
    """Modules that evaluate in a model that trains, such as a frozen norm: they are to stay so.

    None where all that holds parameters evaluates: that is a model after evaluation, perhaps in a
    wrapper made since.
    """
    owners = (m for m in model.modules() if next(m.parameters(recurse=False), None) is not None)
    if not model.training or not any(m.training for m in owners):
        return []
    return [m for m in model.modules() if not m.training]


def _copy(model: nn.Module) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in model.state_dict().items()
    }
