"""``fit``: train a float or prepared model, select on validation, leave it at its best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nodebits.core.distributed import all_rows_of_ranks, on_any_rank
from nodebits.core.errors import ConfigError, FileFormatError, ShapeError
from nodebits.core.observer import check_finite
from nodebits.graph import constant_inputs
from nodebits.methods import QuantConfig
from nodebits.methods.prepare import method_of
from nodebits.models.fit_config import FitConfig
from nodebits.plan.taking import remembering
from nodebits.runtime import PackedModel
from nodebits.tasks import Metrics, Task
from nodebits.train.checkpoint import load_checkpoint, save_checkpoint
from nodebits.train.forms import as_problem
from nodebits.train.interrupt import InterruptGuard
from nodebits.train.loop import Loop
from nodebits.train.problem import Problem


@dataclass(frozen=True)
class FitResult:
    """What training did.

    Attributes:
        best_epoch: Zero-based epoch whose state the model is left at.
        val: Metric and loss on the validation split there.
        epochs: Epochs trained, resumed ones included.
        seconds: Time spent training, resumed runs included.
        interrupted: Whether Ctrl-C ended the run; the model is at its best state so far.
        history: Curves by name, one value per epoch: ``loss``, ``val_loss``, and ``val_accuracy``
            or what the metric of the task is called.
    """

    best_epoch: int
    val: Metrics
    epochs: int
    seconds: float
    interrupted: bool
    history: dict[str, list[float]]


def fit(
    model: nn.Module,
    data: Any,
    config: FitConfig | None = None,
    *,
    method: QuantConfig | None = None,
    teacher_logits: Tensor | None = None,
    checkpoint: str | Path | None = None,
    context: str = "",
    label: str = "train",
    task: str | Task | None = None,
    loss: Any = None,
    metric: Any = None,
    class_weight: Any = None,
    on_epoch: Callable[[Loop], None] | None = None,
) -> FitResult:
    """Trains ``model`` in place and leaves it at its best validation epoch.

    Nothing looks at the test split. The random state of the caller is not changed.

    Args:
        model: A float model, or one that ``prepare`` made. Its forward says what it is given:
            ``x`` and ``edge_index`` (or ``adj_t``), ``batch`` for graph-level tasks, and any other
            field of the data by its name, such as ``edge_weight``; or the ``Data`` itself.
        data: A loaded data set, one graph with masks, parts for training, validation and test, a
            loader, or a problem: see :func:`nodebits.train.as_problem`.
        config: Settings; ``FitConfig()`` by default.
        method: The config whose penalty, hooks and parameter groups take part; None: the one that
            ``prepare`` was given.
        teacher_logits: Logits of the float model for every node or graph; ``None`` trains on
            labels.
        checkpoint: Resumable state, read if it is there and written while training. A finished run
            is not trained again.
        context: What else must be equal for a checkpoint to continue this run.
        label: Text of the progress bar.
        task: What is predicted, of ``nodebits tasks``; None: what the data are for, as
            :func:`nodebits.train.as_problem` says.
        loss: A name or a callable, as in :meth:`nodebits.tasks.Task.using`.
        metric: A name, a callable or a ``Metric``, which selects the epoch.
        class_weight: A weight per class, or ``"balanced"``.
        on_epoch: Called after every epoch.

    Raises:
        DivergedError: The loss became NaN or infinite.
        ShapeError: ``teacher_logits`` has other rows or classes than data and model, or the model
            does not return a row of logits per node or graph; or as :class:`NodeProblem`.
        LabelError: Targets are none of the task, or none for the model.
        ConfigError: There is nothing to train, or the forward needs what the data do not have.
        NonFiniteError: ``teacher_logits`` holds NaN or infinity.
        OverlappingSplitsError: A row is in two splits.
        FileFormatError: The checkpoint names this run and holds the state of none such.

    Warns:
        IgnoredDataWarning: The data have edge weights that the forward does not take.
        TargetScaleWarning: Numbers to learn are far from where outputs begin.
        MissingClassWarning: Some row has a class that no training row has.
        KeyboardInterrupt: Ctrl-C before the first epoch ended, or twice.
    """
    config = FitConfig() if config is None else config
    if method is None and isinstance(model, nn.Module):
        method = method_of(model)
    _check_settings(model, config, method)
    problem = as_problem(data, task, loss=loss, metric=metric, class_weight=class_weight)
    problem.check_model(model)
    context = f"{context} {problem.task.describe()}".rstrip()
    if teacher_logits is not None:
        teacher_logits = _checked_teacher(teacher_logits, problem)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        loop = Loop(model, problem, config, method, teacher_logits)
        kept = Path(checkpoint) if checkpoint else None
        with remembering(model):
            interrupted = _run(loop, kept, context, label, on_epoch)
    if loop.best.epoch < 0 and interrupted:
        raise KeyboardInterrupt
    if loop.best.metrics is None:
        raise ConfigError(
            f"none of {config.epochs} epochs can be selected: the method lets only later ones be, "
            "after its widths are settled. Train longer (epochs)"
        )
    model.load_state_dict(loop.best.state)
    model.eval()
    return FitResult(
        best_epoch=loop.best.epoch,
        val=loop.best.metrics,
        epochs=loop.epoch,
        seconds=loop.seconds,
        interrupted=interrupted,
        history=loop.history,
    )


def _check_settings(model: Any, config: Any, method: Any) -> None:
    """Refuses what cannot be trained, or not like that.

    Raises:
        ConfigError: Names the argument.
    """
    if not isinstance(config, FitConfig):
        raise ConfigError(
            f"config is a {type(config).__name__}: pass a FitConfig; what prepare was given is the "
            "keyword method"
        )
    if method is not None and not isinstance(method, QuantConfig):
        raise ConfigError(
            f"method is a {type(method).__name__}: pass the config that prepare was given"
        )
    if isinstance(model, PackedModel):
        raise ConfigError("a packed model cannot be trained: train the prepared one, then convert")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is a {type(model).__name__}: pass an nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"{type(model).__name__} has no parameter that requires a gradient")
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ConfigError(
                f"parameter {name!r} is {parameter.dtype}: training is in float32, which features "
                "are cast to: call model.float() first"
            )


def _checked_teacher(logits: Any, problem: Problem) -> Tensor:
    """Returns the teacher's logits in float32, without their graph."""
    rows, columns = problem.labels.size(0), problem.task.output_name
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not logits.is_floating_point():
        found = type(logits).__name__
        if isinstance(logits, Tensor):
            found = f"{logits.dtype} {list(logits.shape)}"
        raise ShapeError(
            f"teacher_logits is {found}: it must be a float tensor [{rows}, {columns}]"
        )
    if logits.size(0) != rows:
        raise ShapeError(f"teacher_logits has {logits.size(0)} rows for {rows} labels")
    teacher: Tensor = logits.detach().float()
    check_finite(teacher, "teacher_logits")
    return teacher


def _run(
    loop: Loop,
    path: Path | None,
    context: str,
    label: str,
    on_epoch: Callable[[Loop], None] | None,
) -> bool:
    """Trains until the budget is spent; returns whether Ctrl-C came first."""
    fingerprint = f"{loop.config.fingerprint()} {context}"
    state = None if path is None else load_checkpoint(path, fingerprint)
    if state is not None:
        try:
            loop.restore(state)
        except FileFormatError as error:
            raise FileFormatError(
                f"checkpoint {path} does not fit this run ({error}): delete it to start anew"
            ) from error
    epochs = all_rows_of_ranks(torch.tensor([[loop.epoch]], device=loop.device)).unique()
    if epochs.numel() > 1:
        raise ConfigError(
            f"ranks go on from checkpoints of other epochs ({epochs.tolist()}): give all of them "
            "the same file, or delete theirs"
        )
    if loop.finished:
        return False
    hidden = None if loop.config.progress is None else not loop.config.progress
    written, stopped = time.monotonic(), False
    with (
        constant_inputs(),
        InterruptGuard() as guard,
        tqdm(
            total=loop.config.epochs,
            initial=loop.epoch,
            desc=label,
            unit="epoch",
            leave=False,
            disable=hidden,
        ) as bar,
    ):
        while not loop.finished and not stopped:
            started = time.monotonic()
            if not loop.train_epoch(lambda: guard.requested):
                stopped = True
                break
            metrics = loop.validate()
            loop.seconds += time.monotonic() - started
            bar.update()
            best = loop.best.metrics
            shown = {"best": f"{best.value:.4f}"} if best is not None else {}
            bar.set_postfix(val=f"{metrics.value:.4f}", **shown)
            if on_epoch is not None:
                on_epoch(loop)
            stopped = on_any_rank(guard.requested, loop.device)
            late = time.monotonic() - written >= loop.config.checkpoint_seconds
            due = on_any_rank(late, loop.device)  # files of all ranks are of one epoch
            if path is not None and (due or loop.finished or stopped):
                save_checkpoint(path, fingerprint, loop.state())
                written = time.monotonic()
        return stopped and not loop.finished
