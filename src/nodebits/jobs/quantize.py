"""The quantize job: train, pack, save, load back, measure, report."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodebits.bench.measure import measure_latency
from nodebits.core.errors import ConfigError, NodebitsError, OutputExistsError
from nodebits.core.files import refuse_existing, write_atomically
from nodebits.data import Dataset
from nodebits.jobs.data import architecture_of, goal_of, load_data, normalizes, recipe_of
from nodebits.jobs.experiment import Experiment, Packed, Trained
from nodebits.jobs.folder import PAGE_FILE, job_folder
from nodebits.jobs.quantize_config import JobConfig
from nodebits.jobs.quantize_report import Job, Measured, Run, build_report, to_json_bytes
from nodebits.jobs.threads import threads_set
from nodebits.report.quantize import render_quantize
from nodebits.report.widths import describe_widths
from nodebits.tasks import find_task
from nodebits.train import Recipe

MODEL_FILE, REPORT_FILE = "model.safetensors", "report.json"
_WORK_FOLDER, _JOB_FILE = ".unfinished", "job"


class JobInterruptedError(NodebitsError, RuntimeError):
    """Ctrl-C before there was a quantized model to keep."""


@dataclass
class _Best:
    run: int = -1
    key: tuple[float, float] = (float("-inf"), float("-inf"))
    path: Path | None = None
    packed: Packed | None = None
    teacher: Trained | None = None
    experiment: Experiment | None = None


def run_job(config: JobConfig, command: str = "", floats: Path | None = None) -> dict[str, Any]:
    """Runs the whole job and writes model and reports into ``config.out``.

    The folder is checked before anything is trained. Unfinished work is kept in a hidden folder in
    it, so that the same job continues where it was stopped; the results appear at the end, each at
    once.

    Args:
        config: Settings.
        command: The command line, for the report.
        floats: Folder in which jobs that differ in the quantized model alone share their trained
            float models, those trained alike too; it is kept.

    Returns:
        The report, as written to ``report.json``. Its ``interrupted`` is true when Ctrl-C ended the
        training; the results then describe the best model until then.

    Raises:
        OutputExistsError: The folder holds results of another job, and ``force`` is false.
        OutputBusyError: Another job is writing into the folder.
        JobInterruptedError: Ctrl-C came before any quantized model was trained.
        NodebitsError: Bad settings, data or folders.
    """
    # Wrong names are reported before data is read, and a bad folder before anything is trained.
    normalizes(config.model)
    config.quant_config()
    with job_folder(config.out):
        work = _claim_folder(config)
        try:
            return _run(config, work, floats or work, command)
        except BaseException:
            if not _has_work(work):
                shutil.rmtree(work, ignore_errors=True)
            raise


def _claim_folder(config: JobConfig) -> Path:
    """Makes the folder this job's own; returns the hidden folder of its unfinished work."""
    work = config.out / _WORK_FOLDER
    note, mine = work / _JOB_FILE, config.fingerprint().encode()
    if note.is_file() and note.read_bytes() == mine:
        return work  # what was stopped continues
    results = [config.out / name for name in (MODEL_FILE, REPORT_FILE, PAGE_FILE)]
    refuse_existing(results, config.force, "--force")
    if _has_work(work) and not config.force:
        message = (
            f"{work} is unfinished work of a job with other settings: run that job again, choose "
            "another folder, or --force discards it"
        )
        raise OutputExistsError(errno.EEXIST, message, str(work))
    shutil.rmtree(work, ignore_errors=True)
    write_atomically(note, mine)
    return work


def _has_work(work: Path) -> bool:
    return work.is_dir() and any(path.name != _JOB_FILE for path in work.iterdir())


def _run(config: JobConfig, work: Path, floats: Path, command: str) -> dict[str, Any]:
    method = config.quant_config()
    dataset = load_data(config, config.model)
    recipe = recipe_of(config.model, dataset)
    spec = architecture_of(config, dataset, recipe, **config.architecture)
    dropout = recipe.quantized_dropout if config.dropout is None else None
    runs: list[Run] = []
    best = _Best()
    interrupted = False
    with threads_set(config.threads):
        for fold, seed in _splits_and_seeds(config, dataset):
            experiment = Experiment(dataset, spec, fold, dropout, goal_of(config))
            run, packed, path = _one_run(config, recipe, experiment, seed, fold, work, floats)
            runs.append(run)
            interrupted = run.quantized.interrupted
            key = experiment.problem.task.quality(run.quantized.val)
            if key > best.key:
                best = _Best(len(runs) - 1, key, path, packed, run.teacher, experiment)
            if interrupted:
                break
        assert best.packed and best.path and best.teacher and best.experiment
        example = best.experiment.problem.example("test")
        latency = measure_latency(
            best.teacher.model, best.packed.model, example, config.latency_repeats
        )
        account = example.call(best.packed.model.account)
        report = build_report(
            Job(config, dataset, spec, method, command, best.experiment.problem.task),
            runs,
            best.run,
            Measured(
                sizes=best.packed.sizes,
                latency=latency,
                account=account,
                widths=describe_widths(best.packed.model.module, example),
                plan=best.packed.model.plan(),
            ),
        )
    page = render_quantize(report)
    os.replace(best.path, config.out / MODEL_FILE)
    write_atomically(config.out / REPORT_FILE, to_json_bytes(report))
    write_atomically(config.out / PAGE_FILE, page.encode())
    if not interrupted:
        shutil.rmtree(work)
    return report


def _one_run(
    config: JobConfig,
    recipe: Recipe,
    experiment: Experiment,
    seed: int,
    fold: int | None,
    work: Path,
    floats: Path,
) -> tuple[Run, Packed, Path]:
    """Trains and packs one seed on one split."""
    stem = f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}"
    fit = config.quantized_fit(recipe, seed, experiment.dataset.task)
    teacher = experiment.train_float(
        config.float_fit(recipe, seed), floats / f"{stem}-float.checkpoint"
    )
    _stop_if_interrupted(teacher)
    distilled = None
    if config.float_distilled:
        alike = fit.replace(distill=recipe.quantized_fit.distill)
        # Jobs that train alike share it, methods and widths apart.
        said = f"{alike.fingerprint()} {config.warm}"
        name = f"{stem}-float-alike-{hashlib.sha256(said.encode()).hexdigest()[:12]}.checkpoint"
        distilled = experiment.distill_float(teacher, alike, config.warm, floats / name)
        _stop_if_interrupted(distilled)
    quantized = experiment.quantize(
        teacher,
        config.quant_config(),
        fit,
        warm_start=config.warm or not config.trains,
        train=config.trains,
        checkpoint=work / f"{stem}-quantized.checkpoint",
    )
    path = work / f"{stem}.safetensors"
    origin = {
        "dataset": experiment.dataset.name,
        "method": config.method,
        "bits": config.bits,
        "preset": config.preset,
        "seed": seed,
        "fold": fold,
        f"validation_{quantized.val.name}": quantized.val.value,
        "normalize_features": experiment.dataset.features_normalized,
        "split": config.split,
        "use_node_attr": config.use_node_attr,
        "task": experiment.dataset.task,
        "metric": quantized.val.name,
        "split_seed": config.seed,
        "data": dict(experiment.dataset.about),
    }
    packed = experiment.pack(quantized, path, origin)
    run = Run(seed, fold, teacher, distilled, quantized, packed.test.value, packed.agreement)
    return run, packed, path


def _stop_if_interrupted(trained: Trained) -> None:
    if trained.interrupted:
        raise JobInterruptedError(
            "interrupted while the float reference was trained; "
            "run the same command again to continue"
        )


def _splits_and_seeds(config: JobConfig, dataset: Dataset) -> list[tuple[int | None, int]]:
    if config.folds is None:
        return [(None, seed) for seed in range(config.seeds)]
    if not find_task(dataset.task).level.many_graphs:
        raise ConfigError(
            f"folds is for graph-level data sets; {dataset.name} is node-level: use seeds"
        )
    if config.folds > 10:
        raise ConfigError(f"folds must lie between 1 and 10, got {config.folds}")
    return [(fold, seed) for fold in range(config.folds) for seed in range(config.seeds)]
