"""The report of a quantize job as plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nodebits import ops
from nodebits.bench.environment import describe_environment
from nodebits.bench.measure import FileSizes, Latencies
from nodebits.data import Dataset
from nodebits.jobs.experiment import Trained
from nodebits.jobs.own_model import OwnModel
from nodebits.jobs.quantize_config import JobConfig
from nodebits.methods import QuantConfig
from nodebits.models import ModelSpec
from nodebits.plan.plan import Plan
from nodebits.report.sites import describe_plan, plain_site
from nodebits.runtime import Account
from nodebits.tasks import Task
from nodebits.train.metrics import mean_and_std

# 2: averages and bytes count layers that stayed in float. 3: figures are called by the metric's
# name, as before where that is accuracy; outputs instead of classes. 4: the plan, and the time
# without it.
REPORT_VERSION = 4


@dataclass(frozen=True)
class Run:
    """Figures of one seed on one split."""

    seed: int
    fold: int | None
    teacher: Trained
    distilled: Trained | None
    quantized: Trained
    packed: float
    agreement: float


@dataclass(frozen=True)
class Job:
    """What was asked for.

    Attributes:
        config: Settings.
        dataset: Data.
        spec: Architecture.
        method: Config of the method.
        command: The command line.
        task: As it is measured.
    """

    config: JobConfig
    dataset: Dataset
    spec: ModelSpec | OwnModel
    method: QuantConfig
    command: str
    task: Task


@dataclass(frozen=True)
class Measured:
    """What was measured on the packed model of the best run.

    Attributes:
        sizes: Of its file.
        latency: Of one forward.
        account: Its bits and bytes.
        widths: Of its nodes.
        plan: Its forward as steps, or why there is none.
    """

    sizes: FileSizes
    latency: Latencies
    account: Account
    widths: dict[str, Any]
    plan: Plan | str


def build_report(job: Job, runs: list[Run], best_run: int, measured: Measured) -> dict[str, Any]:
    """Gathers everything a reader may ask about the job.

    Args:
        job: What was asked for.
        runs: Of every split and seed.
        best_run: Number of the run that validation likes best.
        measured: On that run's model.
    """
    config, dataset, account = job.config, job.dataset, measured.account
    metric = job.task.metric
    figures = {
        "float": spread([run.teacher.test.value for run in runs]),
        "simulated": spread([run.quantized.test.value for run in runs]),
        "packed": spread([run.packed for run in runs]),
    }
    distilled = [run.distilled.test.value for run in runs if run.distilled is not None]
    if distilled:
        figures["float_distilled"] = spread(distilled)
    validation = {
        "float": spread([run.teacher.val.value for run in runs]),
        "simulated": spread([run.quantized.val.value for run in runs]),
    }
    agreement = [run.agreement for run in runs]
    medians = {name: value.median for name, value in measured.latency.by_name.items()}
    return {
        "report_version": REPORT_VERSION,
        "interrupted": any(run.quantized.interrupted for run in runs),
        "dataset": {
            "name": dataset.name,
            "task": dataset.task,
            "features": dataset.num_features,
            "outputs": dataset.num_classes,
            "notes": dataset.notes,
            "own": dataset.ids is not None,
        },
        "metric": metric.to_json(),
        "model": job.spec.to_json(),
        "method": {
            "name": config.method,
            "bits": config.bits,
            "preset": config.preset,
            "settings": job.method.to_json(),
            "warm_start": config.warm or not config.trains,
        },
        metric.name: figures,
        f"validation_{metric.name}": validation,
        "agreement": sum(agreement) / len(agreement),
        "agreement_values": agreement,
        "bits": {
            "average": account.average_bits,
            "average_with_scales": account.average_bits_with_scales,
            "site_average": account.average_site_bits,
            "site_average_with_scales": account.average_site_bits_with_scales,
        },
        "bytes": {
            "file": measured.sizes.file,
            "float_file": measured.sizes.float_file,
            "activations": account.activation_bytes,
            "float_activations": account.float_activation_bytes,
            "weights": account.weight_bytes,
            "float_weights": account.float_weight_bytes,
            "quantized_weights": account.quantized_weight_bytes,
        },
        "float_layers": account.float_layers,
        "sites": [plain_site(site) for site in (*account.sites, *account.weights)],
        "widths": measured.widths,
        "plan": describe_plan(measured.plan),
        "latency_ms": {n: value.to_json() for n, value in measured.latency.by_name.items()},
        "packed_ahead": measured.latency.packed_ahead,
        "other_load": measured.latency.other_load,
        "speedup": medians["float"] / medians["packed"],
        "speedup_prepared": medians["float"] / medians["packed_prepared"],
        "train_seconds": sum(
            trained.seconds
            for run in runs
            for trained in (run.teacher, run.distilled, run.quantized)
            if trained is not None
        ),
        "runs": [_run(run) for run in runs],
        "best_run": best_run,
        "curves": _curves(runs[best_run]),
        **describe_environment(),
        "isa": ops.describe()["isa"],
        "command": job.command,
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Returns mean, sample standard deviation and the values."""
    mean, std = mean_and_std(values)
    return {"mean": mean, "std": std, "values": values}


def to_json_bytes(report: dict[str, Any]) -> bytes:
    """Encodes a report; not-a-number would not be JSON and is refused."""
    return (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()


def _run(run: Run) -> dict[str, Any]:
    fit = run.quantized.fit
    return {
        "seed": run.seed,
        "fold": run.fold,
        "float": run.teacher.test.value,
        "float_distilled": None if run.distilled is None else run.distilled.test.value,
        "simulated": run.quantized.test.value,
        "packed": run.packed,
        "agreement": run.agreement,
        "validation": run.quantized.val.value,
        "best_epoch": None if fit is None else fit.best_epoch,
        "epochs": 0 if fit is None else fit.epochs,
        "float_seconds": run.teacher.seconds,
        "quantized_seconds": run.quantized.seconds,
        "interrupted": run.quantized.interrupted,
    }


def _curves(run: Run) -> dict[str, Any]:
    named = {"float": run.teacher, "float_distilled": run.distilled, "quantized": run.quantized}
    return {
        name: {"best_epoch": trained.fit.best_epoch, **trained.fit.history}
        for name, trained in named.items()
        if trained is not None and trained.fit is not None
    }
