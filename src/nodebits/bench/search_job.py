"""The search job: float model, search on validation, fine-tuning, config file and report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nodebits import ops
from nodebits.bench.environment import describe_environment
from nodebits.bench.experiment import Experiment, Trained, make_spec
from nodebits.bench.job import threads_set
from nodebits.bench.report import to_json_bytes
from nodebits.bench.search_report import render_search
from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.core.fields import check_fields
from nodebits.core.files import ensure_writable_folder, write_atomically
from nodebits.data import load_dataset
from nodebits.methods import SGQuantConfig, make_config
from nodebits.search import (
    CostModel,
    Evaluator,
    Space,
    Study,
    StudySettings,
    Trial,
    make_strategy,
    run_study,
)
from nodebits.search.costs import OBJECTIVES
from nodebits.search.latency import LatencyTable, interleaved, measure_table
from nodebits.search.space import DEFAULT_CHOICES, GRANULARITIES
from nodebits.train import FitConfig, Recipe, find_recipe
from nodebits.train.interrupt import InterruptGuard

CONFIG_FILE, FRONT_FILE, STUDY_FILE = "config.toml", "front.json", "study.json"
PAGE_FILE, COSTS_FILE = "report.html", "kernel_costs.json"
_WORK_FOLDER = ".float"
# Front points whose packed models are timed.
MOST_TIMED = 12


@dataclass(frozen=True)
class SearchConfig:
    """One search job. ``None`` means the recipe's value.

    Attributes:
        out: Folder of the results, and of the study that a second call continues.
        dataset: Name of the data set.
        data_root: Folder of raw data.
        cache: Folder of processed data.
        model: Name of the architecture.
        method: Method whose bit table is searched.
        objective: ``bytes``, ``bits`` or ``latency``.
        max_drop: Points of validation accuracy that may be lost.
        slack: Further points that the search allows, for fine-tuning to win back.
        budget: Configurations to measure.
        strategy: ``tree``, ``random``, ``tpe`` or ``nsga2``.
        batch: Configurations per round.
        seed: Of the float model and the search.
        workers: Processes that measure.
        choices: Widths to choose from.
        granularity: What shares a width: ``uniform``, ``layer``, ``component`` or ``bucket``.
        splits: In-degrees at which buckets begin.
        search_weights: Whether weight matrices have widths of their own, else 8 bits.
        fine_tune: Front points to fine-tune; 0 for post-training quantization.
        hidden: Hidden width.
        layers: Number of layers.
        heads: Attention heads.
        dropout: Dropout probability.
        epochs: Epochs of fine-tuning.
        float_epochs: Epochs of the float model.
        threads: Threads for training and timing.
        latency_repeats: Timed rounds.
        progress: Show progress bars; ``None``: on a terminal.
    """

    out: Path
    dataset: str = "digits"
    data_root: Path | None = None
    cache: Path | None = None
    model: str = "gcn"
    method: str = "sgquant"
    objective: str = "bytes"
    max_drop: float = 0.5
    slack: float = 0.0
    budget: int = 80
    strategy: str = "tree"
    batch: int = 10
    seed: int = 0
    workers: int = 1
    choices: tuple[int, ...] = DEFAULT_CHOICES
    granularity: str = "component"
    splits: tuple[int, ...] | None = None
    search_weights: bool = True
    fine_tune: int = 3
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    dropout: float | None = None
    epochs: int | None = None
    float_epochs: int | None = None
    threads: int | None = None
    latency_repeats: int = 15
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Rejects values outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
            UnknownNameError: On an unknown objective.
        """
        check_fields(self)
        for name in ("budget", "batch", "workers", "latency_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_drop", "slack", "fine_tune"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.objective not in OBJECTIVES:
            raise UnknownNameError.for_name("objective", self.objective, OBJECTIVES)
        if self.granularity not in GRANULARITIES:
            raise UnknownNameError.for_name("granularity", self.granularity, GRANULARITIES)

    def options(self, mode: str) -> dict[str, Any]:
        """Fields of the method's config besides the table."""
        options: dict[str, Any] = {}
        if self.method in ("sgquant", "uniform"):
            options["mode"] = mode
        if self.splits is not None:
            options["splits"] = list(self.splits)
        return options


@dataclass
class _Found:
    """A point of the front, as it was measured afterwards."""

    trial: Trial
    table: dict[str, int | list[int]]
    milliseconds: float | None = None
    tuned: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def run_search(config: SearchConfig, command: str = "") -> dict[str, Any]:
    """Runs the whole search and writes its results into ``config.out``.

    Called again with the same settings, it continues; with a larger budget, it goes on from there.

    Returns:
        The content of ``front.json``.

    Raises:
        NodebitsError: Bad settings, data or folders.
        MissingExtraError: The strategy needs a package that is not installed.
    """
    recipe = find_recipe(config.model, "node")
    make_config(config.method, 8, **config.options("ptq"))  # wrong names, before data is read
    ensure_writable_folder(config.out)
    dataset = load_dataset(
        config.dataset,
        config.data_root,
        cache=config.cache,
        normalize_features=recipe.normalize_features,
    )
    recipe = find_recipe(config.model, dataset.task, dataset.name)
    spec = make_spec(
        dataset,
        config.model,
        recipe,
        hidden=config.hidden,
        layers=config.layers,
        heads=config.heads,
        dropout=config.dropout,
    )
    started = time.monotonic()
    with threads_set(config.threads):
        experiment = Experiment(dataset, spec, None, recipe.quantized_dropout)
        teacher = _float_model(config, recipe, experiment)
        evaluator = Evaluator(teacher.model, experiment.problem)
        options = config.options("ptq")
        account = evaluator.account(make_config(config.method, 8, **options))

        def space_of(granularity: str) -> Space:
            return Space.of(
                account,
                config.method,
                choices=config.choices,
                weights=config.search_weights,
                granularity=granularity,
                **options,
            )

        space = evaluator.space = space_of(config.granularity)
        costs = CostModel(evaluator, space)
        if config.objective == "latency":
            # Kernels are timed site by site, whatever the search makes share a width.
            shared = config.granularity in ("uniform", "layer")
            timed = space_of("component") if shared else space
            costs.latency_table = _latency_table(config, evaluator, timed, costs)
        target = teacher.val.accuracy - config.max_drop / 100
        study = _study(config, space, target, dataset.name)
        # A missing package is reported before anything is measured.
        make_strategy(config.strategy, space, lambda point: 0.0, target)
        with InterruptGuard() as guard:
            run_study(
                study,
                evaluator,
                costs,
                workers=config.workers,
                progress=config.progress,
                stop=lambda: guard.requested,
            )
            interrupted = guard.requested
        front = [_Found(trial, space.table(trial.point)) for trial in study.front()]
        _time(front, space, evaluator, config.latency_repeats)
        chosen = _choose(front, config, recipe, experiment, teacher, target, interrupted)
    report = {
        "report_version": 1,
        "interrupted": interrupted,
        "dataset": {"name": dataset.name, "task": dataset.task, "notes": dataset.notes},
        "model": spec.to_json(),
        "method": config.method,
        "objective": config.objective,
        "strategy": config.strategy,
        "max_drop": config.max_drop,
        "slack": config.slack,
        "budget": config.budget,
        "float": {"val": teacher.val.accuracy, "test": teacher.test.accuracy},
        "target": target,
        "space": {"slots": [asdict(slot) for slot in space.slots], "size": space.size},
        "trials": [
            {"accuracy": t.accuracy, "bytes": t.bytes, "bits": t.bits, "latency": t.latency}
            for t in study.trials
        ],
        "front": [_plain(found) for found in front],
        "chosen": None if chosen is None else _plain(chosen),
        "seconds": time.monotonic() - started,
        **describe_environment(),
        "isa": ops.describe()["isa"],
        "command": command,
    }
    if chosen is not None:
        text = config_toml(config, dataset.name, chosen.table)
        write_atomically(config.out / CONFIG_FILE, text.encode())
    write_atomically(config.out / FRONT_FILE, to_json_bytes(report))
    write_atomically(config.out / PAGE_FILE, render_search(report).encode())
    return report


def _plain(found: _Found) -> dict[str, Any]:
    trial = found.trial
    return {
        "table": found.table,
        "accuracy": trial.accuracy,
        "bytes": trial.bytes,
        "bits": trial.bits,
        "predicted_ms": trial.latency,
        "milliseconds": found.milliseconds,
        "fine_tuned": found.tuned,
        **found.extra,
    }


def _float_model(config: SearchConfig, recipe: Recipe, experiment: Experiment) -> Trained:
    fit = recipe.float_fit.replace(seed=config.seed, progress=config.progress)
    if config.float_epochs is not None:
        fit = fit.replace(epochs=config.float_epochs)
    work = ensure_writable_folder(config.out / _WORK_FOLDER)
    teacher = experiment.train_float(fit, work / "float.checkpoint")
    if teacher.interrupted:
        raise KeyboardInterrupt
    return teacher


def _latency_table(
    config: SearchConfig, evaluator: Evaluator, space: Space, costs: CostModel
) -> LatencyTable:
    """The table of this machine, model and space: read from the folder where it is there."""
    machine = {
        **describe_environment(),
        "isa": ops.describe()["isa"],
        "threads": torch.get_num_threads(),
        "slots": [slot.name for slot in space.slots],
    }
    machine = json.loads(json.dumps(machine))
    path = config.out / COSTS_FILE
    if path.exists():
        table = LatencyTable.from_json(json.loads(path.read_text(encoding="utf-8")))
        if table.machine == machine:
            return table
    table = measure_table(
        space,
        lambda point: evaluator.packed(space.config(point)),
        evaluator.example(),
        repeats=config.latency_repeats,
        shares=costs.bucket_shares(),
        machine=machine,
    )
    write_atomically(path, to_json_bytes(table.to_json()))
    return table


def _study(config: SearchConfig, space: Space, target: float, dataset: str) -> Study:
    settings = StudySettings(
        config.objective,
        config.strategy,
        target - config.slack / 100,
        config.budget,
        config.batch,
        config.seed,
    )
    context = {
        "dataset": dataset,
        "model": config.model,
        "method": config.method,
        "choices": list(config.choices),
        "splits": None if config.splits is None else list(config.splits),
    }
    study = Study(
        settings, [slot.name for slot in space.slots], context, [], config.out / STUDY_FILE
    )
    study.resume()
    return study


def _time(front: list[_Found], space: Space, evaluator: Evaluator, repeats: int) -> None:
    """Runs the packed models of the front, interleaved."""
    step = max(-(-len(front) // MOST_TIMED), 1)
    timed = front[::step]
    packed = {
        str(number): evaluator.packed(space.config(found.trial.point))
        for number, found in enumerate(timed)
    }
    samples = interleaved(packed, evaluator.example(), repeats)
    for number, found in enumerate(timed):
        values = torch.tensor(samples[str(number)], dtype=torch.float64)
        found.milliseconds = values.median().item()


def _choose(
    front: list[_Found],
    config: SearchConfig,
    recipe: Recipe,
    experiment: Experiment,
    teacher: Trained,
    target: float,
    interrupted: bool,
) -> _Found | None:
    """The cheapest point that reaches the target, after fine-tuning where that is asked for."""
    feasible = [f for f in front if f.trial.accuracy >= target - config.slack / 100]
    fit = _tuning(config, recipe)
    for found in [] if interrupted else feasible[: config.fine_tune]:
        method = make_config(config.method, 8, overrides=found.table, **config.options("qat"))
        found.tuned = experiment.quantize(teacher, method, fit, warm_start=True).val.accuracy
        if found.tuned >= target:
            return found
    return next((f for f in feasible if f.trial.accuracy >= target), None)


def _tuning(config: SearchConfig, recipe: Recipe) -> FitConfig:
    """Fine-tuning from the float model: shorter, at half the rate."""
    base = recipe.quantized_fit
    epochs = max(base.epochs // 3, 1) if config.epochs is None else config.epochs
    return base.replace(epochs=epochs, lr=base.lr / 2, seed=config.seed, progress=config.progress)


def config_toml(config: SearchConfig, dataset: str, table: dict[str, int | list[int]]) -> str:
    """The file that ``nodebits quantize --config`` reads."""
    lines = [
        f'dataset = "{dataset}"',
        f'model = "{config.model}"',
        f'method = "{config.method}"',
        "bits = 8",
    ]
    for name in ("hidden", "layers", "heads", "dropout"):
        value = getattr(config, name)
        if value is not None:
            lines.append(f"{name} = {value}")
    if config.method in ("sgquant", "uniform"):
        lines.append(f'mode = "{"qat" if config.fine_tune else "ptq"}"')
    if config.method == "sgquant":
        splits = config.splits or SGQuantConfig().splits
        lines.append(f"splits = {list(splits)}")
    lines += ["", "[override]", *(f'"{site}" = {width}' for site, width in table.items())]
    return "\n".join(lines) + "\n"
