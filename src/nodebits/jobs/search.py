"""The search job: float model, search on validation, confirmation, config file and report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nodebits import ops
from nodebits.bench.environment import describe_environment
from nodebits.core.files import ensure_writable_folder, refuse_existing, write_atomically
from nodebits.data import Dataset
from nodebits.jobs.data import architecture_of, goal_of, load_data, normalizes, recipe_of
from nodebits.jobs.experiment import Experiment, Trained
from nodebits.jobs.folder import PAGE_FILE, job_folder
from nodebits.jobs.quantize_report import to_json_bytes
from nodebits.jobs.search_config import SearchConfig, config_toml
from nodebits.jobs.search_confirm import Confirmation, Confirmer
from nodebits.jobs.threads import threads_set
from nodebits.methods import make_config
from nodebits.report.search import render_search
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
from nodebits.search.latency import LatencyTable, interleaved, measure_table
from nodebits.tasks import Metric
from nodebits.train import Recipe
from nodebits.train.interrupt import InterruptGuard

CONFIG_FILE, FRONT_FILE, STUDY_FILE = "config.toml", "front.json", "study.json"
COSTS_FILE = "kernel_costs.json"
_WORK_FOLDER = ".float"
# Front points whose packed models are timed.
MOST_TIMED = 12


@dataclass
class _Found:
    """A point of the front, as it was measured afterwards."""

    trial: Trial
    table: dict[str, int | list[int]]
    milliseconds: float | None = None
    confirmation: Confirmation | None = None


def run_search(config: SearchConfig, command: str = "", force: bool = False) -> dict[str, Any]:
    """Runs the whole search and writes its results into ``config.out``.

    Called again with the same settings, it continues; with a larger budget, it goes on from there.

    Args:
        config: Settings.
        command: How the search was started, for the report.
        force: Whether it begins anew and replaces what is in the folder.

    Returns:
        The content of ``front.json``.

    Raises:
        OutputExistsError: The folder holds results of another job, and ``force`` is false.
        OutputBusyError: Another job is writing into the folder.
        NodebitsError: Bad settings, data or folders.
        MissingExtraError: The strategy needs a package that is not installed.
    """
    normalizes(config.model)
    make_config(config.method, 8, **config.options("ptq"))  # wrong names, before data is read
    with job_folder(config.out):
        study = config.out / STUDY_FILE
        if force:
            study.unlink(missing_ok=True)
        elif not study.exists():
            results = [config.out / name for name in (CONFIG_FILE, FRONT_FILE, PAGE_FILE)]
            refuse_existing(results, False, "--force")
        return _run(config, command)


def _run(config: SearchConfig, command: str) -> dict[str, Any]:
    dataset = load_data(config, config.model)
    recipe = recipe_of(config.model, dataset)
    spec = architecture_of(config, dataset, recipe)
    started = time.monotonic()
    with threads_set(config.threads):
        experiment = Experiment(dataset, spec, None, recipe.quantized_dropout, goal_of(config))
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
        metric = experiment.problem.task.metric
        target = metric.after_losing(teacher.val.value, config.max_drop)
        least = metric.after_losing(teacher.val.value, config.max_drop + config.slack)
        study = _study(config, space, metric.score(least), dataset)
        # A missing package is reported before anything is measured.
        make_strategy(config.strategy, space, lambda point: 0.0, metric.score(target))
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
        confirmer = Confirmer(config, recipe, experiment, teacher, config.out / _WORK_FOLDER)
        tried = [] if interrupted else _confirm(front, evaluator, costs, study, confirmer)
        interrupted = interrupted or confirmer.interrupted
        held = [f for f in tried if f.confirmation is not None and f.confirmation.holds]
        chosen = held[0] if held else None
    report = {
        "report_version": 3,
        "interrupted": interrupted,
        "dataset": {"name": dataset.name, "task": dataset.task, "notes": dataset.notes},
        "model": spec.to_json(),
        "metric": metric.to_json(),
        "method": config.method,
        "objective": config.objective,
        "strategy": config.strategy,
        "max_drop": config.max_drop,
        "slack": config.slack,
        "budget": config.budget,
        "float": {"val": teacher.val.value, "test": teacher.test.value},
        "target": target,
        "space": {"slots": [asdict(slot) for slot in space.slots], "size": space.size},
        "trials": [
            {
                metric.name: metric.score(t.score),
                "loss": t.loss,
                "bytes": t.bytes,
                "bits": t.bits,
                "latency": t.latency,
            }
            for t in study.trials
        ],
        "front": [_plain(found, metric) for found in front],
        "chosen": None if chosen is None else _plain(chosen, metric),
        "confirmed": [_plain(found, metric) for found in tried],
        "nearest": None
        if chosen is not None or not tried
        else _plain(min(tried, key=_miss), metric),
        "seconds": time.monotonic() - started,
        **describe_environment(),
        "isa": ops.describe()["isa"],
        "command": command,
    }
    if chosen is not None:
        # Data of one's own are found by their path.
        where = dataset.name if dataset.ids is None and not dataset.about else config.dataset
        text = config_toml(config, recipe, where, chosen.table)
        write_atomically(config.out / CONFIG_FILE, text.encode())
    elif not interrupted:
        # One that an earlier search left here would be taken for this one's.
        (config.out / CONFIG_FILE).unlink(missing_ok=True)
    write_atomically(config.out / FRONT_FILE, to_json_bytes(report))
    write_atomically(config.out / PAGE_FILE, render_search(report).encode())
    return report


def _plain(found: _Found, metric: Metric) -> dict[str, Any]:
    trial = found.trial
    return {
        "table": found.table,
        metric.name: metric.score(trial.score),
        "bytes": trial.bytes,
        "bits": trial.bits,
        "predicted_ms": trial.latency,
        "loss": trial.loss,
        "milliseconds": found.milliseconds,
        "confirmation": None if found.confirmation is None else found.confirmation.to_json(),
    }


def _float_model(config: SearchConfig, recipe: Recipe, experiment: Experiment) -> Trained:
    work = ensure_writable_folder(config.out / _WORK_FOLDER)
    fit = config.float_fit(recipe, config.seed)
    teacher = experiment.train_float(fit, work / f"float-{config.seed}.checkpoint")
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
        table = LatencyTable.read(path)
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


def _study(config: SearchConfig, space: Space, target: float, dataset: Dataset) -> Study:
    settings = StudySettings(
        config.objective,
        config.strategy,
        target,
        config.budget,
        config.batch,
        config.seed,
    )
    context = {
        "dataset": dataset.name,
        **_said(config),
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


def _said(config: SearchConfig) -> dict[str, Any]:
    """What was asked for other than usual; a study of before had none of it."""
    names = ("task", "target", "ignore", "split", "loss", "metric", "class_weight", "model_args")
    found = {name: getattr(config, name) for name in names}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value is not None
    }


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
        values = torch.tensor(samples[str(number)], dtype=torch.float64, device="cpu")
        found.milliseconds = values.median().item()


def _confirm(
    front: list[_Found],
    evaluator: Evaluator,
    costs: CostModel,
    study: Study,
    confirmer: Confirmer,
) -> list[_Found]:
    """Confirms candidates, cheapest first, until one holds; returns those that were tried.

    Candidates are the points of the front that reach the target when calibrated, and, in case luck
    was all they had, the tables of one width everywhere, the widest of them whatever it reaches.
    Where training allows fewer, they are spread evenly over these.
    """
    space, settings = evaluator.space, study.settings
    metric = evaluator.problem.task.metric
    assert space is not None
    least = settings.target
    candidates = [f for f in front if f.trial.score >= least]
    widths = sorted({width for slot in space.slots for width in slot.choices})
    for width in widths:
        point = space.uniform(width)
        if any(found.trial.point == point for found in candidates):
            continue
        trial = Trial.of(point, evaluator.point_metrics(point), costs, metric)
        if trial.score >= least or width == widths[-1]:
            candidates.append(_Found(trial, space.table(point)))
    candidates.sort(key=lambda found: found.trial.cost(settings.objective))
    most = confirmer.config.fine_tune
    if 1 < most < len(candidates):
        last = len(candidates) - 1
        candidates = [candidates[round(n * last / (most - 1))] for n in range(most)]
    tried = []
    for found in candidates[:1] if most == 1 else candidates:
        found.confirmation = confirmer.confirm(found.table)
        if found.confirmation is None:  # Ctrl-C
            break
        tried.append(found)
        if found.confirmation.holds:
            break
    return tried


def _miss(found: _Found) -> float:
    assert found.confirmation is not None
    return found.confirmation.bound
