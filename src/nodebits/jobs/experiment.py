"""One run, end to end: float reference, quantized model, packed model read back from its file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.bench.measure import FileSizes, file_sizes
from nodebits.data import Dataset, folds
from nodebits.jobs.own_model import OwnModel, imported
from nodebits.methods import QuantConfig, UniformConfig, calibrate, prepare
from nodebits.methods.prepare import forget_method
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import PackedModel, convert, load
from nodebits.tasks import find_task
from nodebits.train import (
    FitConfig,
    FitResult,
    GraphProblem,
    Metrics,
    Problem,
    Recipe,
    as_problem,
    fit,
)
from nodebits.train.evaluate import forward_of

FLOAT_SITES = UniformConfig(bits=32, attention_bits=32)


@dataclass(frozen=True)
class Trained:
    """A model at its best validation epoch, its outputs on all rows, and its figures.

    ``fit`` is ``None`` for post-training quantization, which does not train.
    """

    model: nn.Module
    logits: Tensor
    val: Metrics
    test: Metrics
    fit: FitResult | None

    @property
    def seconds(self) -> float:
        """Training time."""
        return 0.0 if self.fit is None else self.fit.seconds

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.fit is not None and self.fit.interrupted


@dataclass(frozen=True)
class Packed:
    """The packed model as its file gives it back.

    Attributes:
        model: The loaded model.
        test: Its figures on the test split.
        agreement: Share of test rows where it predicts what the simulated model predicts.
        sizes: Bytes of the file, and of the float weights stored the same way.
    """

    model: PackedModel
    test: Metrics
    agreement: float
    sizes: FileSizes


@dataclass(frozen=True)
class Goal:
    """What is learned and measured, where that is not the task's usual; see ``Task.using``.

    Attributes:
        loss: Name of a loss.
        metric: Name of a metric.
        class_weight: Weights of classes.
    """

    loss: str | None = None
    metric: str | None = None
    class_weight: Any = None


class Experiment:
    """Everything that the runs of one architecture on one split share."""

    def __init__(
        self,
        dataset: Dataset,
        spec: ModelSpec | OwnModel,
        fold: int | None = None,
        quantized_dropout: float | None = None,
        goal: Goal | None = None,
    ) -> None:
        """Takes the data set's own split, or one of its ten folds.

        Args:
            dataset: The data.
            spec: The architecture.
            fold: One of the ten folds; ``None`` for the data set's own split.
            quantized_dropout: Dropout of quantized training, and of the float model trained the
                same way; ``None`` for the architecture's.
            goal: Loss, metric and weights of classes; ``None`` for the task's.
        """
        self.dataset, self.spec = dataset, spec
        self.quantized_dropout = quantized_dropout
        self.problem = problem_of_fold(dataset, fold, goal)

    def new_model(self, seed: int) -> nn.Module:
        """Returns an untrained model; its initial weights depend on ``seed`` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(self.spec, OwnModel):
                return self.spec.build()
            return build_model(self.spec)

    def convert(self, model: nn.Module) -> PackedModel:
        """Packs a prepared model; its file says what makes it again."""
        return convert(model, None if isinstance(self.spec, OwnModel) else self.spec)

    def train_float(self, config: FitConfig, checkpoint: Path | None = None) -> Trained:
        """Trains the float reference on labels alone."""
        model = self.new_model(config.seed)
        result = self._fit_float(
            model,
            config.replace(distill=0.0),
            None,
            checkpoint,
            context=f"float {self.spec!r}",
            label=f"float, seed {config.seed}",
        )
        return self.measure(model, result)

    def distill_float(
        self, teacher: Trained, config: FitConfig, warm_start: bool, checkpoint: Path | None = None
    ) -> Trained:
        """Trains a float model exactly as the quantized one, to be fair to float."""
        model = self.new_model(config.seed)
        if warm_start:
            model.load_state_dict(teacher.model.state_dict())
        self._set_dropout(model)
        result = self._fit_float(
            model,
            config,
            teacher.logits if config.distill > 0 else None,
            checkpoint,
            context=f"float distilled {self.spec!r} {self.quantized_dropout} {warm_start}",
            label=f"float distilled, seed {config.seed}",
        )
        return self.measure(model, result)

    def _fit_float(
        self,
        model: nn.Module,
        config: FitConfig,
        teacher: Tensor | None,
        checkpoint: Path | None,
        *,
        context: str,
        label: str,
    ) -> FitResult:
        """Trains the PyG model through its twin with every site in float.

        The twin computes the same function of the same parameters, several times faster (constant
        sums of raw features are kept, sparse rows are multiplied as such); what is measured
        afterwards is PyG's model.
        """
        twin = prepare(model, FLOAT_SITES)
        forget_method(twin)  # it is trained as a float model is
        result = fit(
            twin,
            self.problem,
            config,
            teacher_logits=teacher,
            checkpoint=checkpoint,
            context=context,
            label=label,
        )
        state = twin.state_dict()
        model.load_state_dict({name: state[name] for name in model.state_dict()})
        return result

    def quantize(
        self,
        teacher: Trained,
        method: QuantConfig,
        config: FitConfig,
        warm_start: bool,
        train: bool = True,
        checkpoint: Path | None = None,
    ) -> Trained:
        """Prepares and trains the quantized model, or only calibrates it.

        Args:
            teacher: The float reference.
            method: What quantizes which site.
            config: Settings of quantized training; ``distill`` 0 ignores the teacher.
            warm_start: Start from the teacher's weights instead of fresh ones.
            train: False observes ranges on the training data and trains nothing.
            checkpoint: Resumable state.
        """
        start = teacher.model if warm_start else self.new_model(config.seed)
        model = prepare(start, method)
        self._set_dropout(model, method)
        if not train:
            step = next(iter(self.problem.steps(config.batch_size, torch.Generator())))
            step.inputs.call(partial(calibrate, model), model)
            return self.measure(model, None)
        result = fit(
            model,
            self.problem,
            config,
            method=method,
            teacher_logits=teacher.logits if config.distill > 0 else None,
            checkpoint=checkpoint,
            context=f"quantized {self.spec!r} {self.quantized_dropout} {method!r} {warm_start}",
            label=f"quantized, seed {config.seed}",
        )
        return self.measure(model, result)

    def pack(
        self, simulated: Trained, path: Path, metadata: dict[str, Any] | None = None
    ) -> Packed:
        """Converts, saves to ``path``, loads that file and measures what was loaded.

        Raises:
            OutputError: The file cannot be written.
        """
        own = isinstance(self.spec, OwnModel)
        # What the constructor was given is kept where it makes the model again.
        arguments = None
        if isinstance(self.spec, OwnModel) and isinstance(imported(self.spec.path), type):
            arguments = self.spec.arguments
        self.convert(simulated.model).save(path, metadata, arguments=arguments)
        model = load(path, model=self.new_model(0)) if own else load(path)
        task, logits = self.problem.task, self.problem.logits(forward_of(model), "test")
        return Packed(
            model=model,
            test=task.measure(logits, self.problem.split_labels("test")),
            agreement=task.agreement(logits, simulated.logits[self.problem.indices["test"]]),
            sizes=file_sizes(path, self.new_model(0)),
        )

    def _set_dropout(self, model: nn.Module, method: QuantConfig | None = None) -> None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                if self.quantized_dropout is not None:
                    module.p = self.quantized_dropout
                module.p = module.p if method is None else method.trained_dropout(module.p)

    def measure(self, model: nn.Module, result: FitResult | None) -> Trained:
        """Runs ``model`` over all rows once."""
        logits = self.problem.logits(forward_of(model))
        val, test = (
            self.problem.task.measure(
                logits[self.problem.indices[split]], self.problem.split_labels(split)
            )
            for split in ("val", "test")
        )
        return Trained(model, logits, val, test, result)


def problem_of_fold(dataset: Dataset, fold: int | None, goal: Goal | None = None) -> Problem:
    """Returns the data set with its own split, or with one of the ten folds.

    Args:
        dataset: The data.
        fold: One of the ten; None for the data's own split.
        goal: Loss, metric and weights of classes; None for the task's.
    """
    goal = Goal() if goal is None else goal
    chosen: dict[str, Any] = {
        "loss": goal.loss,
        "metric": goal.metric,
        "class_weight": goal.class_weight,
    }
    if fold is None or not find_task(dataset.task).level.many_graphs:
        return as_problem(dataset, **chosen)
    task = find_task(dataset.task).using(**chosen)
    return GraphProblem(dataset.graphs, *folds(dataset)[fold], task)


def make_spec(
    dataset: Dataset,
    model: str,
    recipe: Recipe,
    *,
    hidden: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    dropout: float | None = None,
    **options: Any,
) -> ModelSpec:
    """Returns the architecture for a data set: the recipe's sizes where none are given.

    ``options`` are further fields of :class:`ModelSpec`, such as ``steps``.
    """
    return ModelSpec(
        name=model,
        in_channels=dataset.num_features,
        hidden_channels=recipe.hidden if hidden is None else hidden,
        out_channels=dataset.num_classes,
        num_layers=recipe.layers if layers is None else layers,
        dropout=recipe.dropout if dropout is None else dropout,
        heads=recipe.heads if heads is None else heads,
        task=dataset.task,
        **{"norm": recipe.norm, **options},
    )
