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
from nodebits.jobs.quantize_config import JobConfig
from nodebits.methods import QuantConfig
from nodebits.nn import ModelSpec
from nodebits.report.sites import plain_site
from nodebits.runtime import Account
from nodebits.train.metrics import mean_and_std

# 2: averages and bytes count layers that stayed in float.
REPORT_VERSION = 2


@dataclass(frozen=True)
class Run:
    """Figures of one seed on one split."""

    seed: int
    fold: int | None
    teacher: Trained
    distilled: Trained | None
    quantized: Trained
    packed_accuracy: float
    agreement: float


def build_report(
    *,
    config: JobConfig,
    dataset: Dataset,
    spec: ModelSpec,
    method: QuantConfig,
    runs: list[Run],
    best_run: int,
    sizes: FileSizes,
    latency: Latencies,
    account: Account,
    widths: dict[str, Any],
    interrupted: bool,
    command: str,
) -> dict[str, Any]:
    """Gathers everything a reader may ask about the job."""
    accuracy = {
        "float": spread([run.teacher.test.accuracy for run in runs]),
        "simulated": spread([run.quantized.test.accuracy for run in runs]),
        "packed": spread([run.packed_accuracy for run in runs]),
    }
    distilled = [run.distilled.test.accuracy for run in runs if run.distilled is not None]
    if distilled:
        accuracy["float_distilled"] = spread(distilled)
    validation = {
        "float": spread([run.teacher.val.accuracy for run in runs]),
        "simulated": spread([run.quantized.val.accuracy for run in runs]),
    }
    agreement = [run.agreement for run in runs]
    medians = {name: value.median for name, value in latency.by_name.items()}
    return {
        "report_version": REPORT_VERSION,
        "interrupted": interrupted,
        "dataset": {
            "name": dataset.name,
            "task": dataset.task,
            "features": dataset.num_features,
            "classes": dataset.num_classes,
            "notes": dataset.notes,
        },
        "model": spec.to_json(),
        "method": {
            "name": config.method,
            "bits": config.bits,
            "preset": config.preset,
            "settings": method.to_json(),
            "warm_start": config.warm or not config.trains,
        },
        "accuracy": accuracy,
        "validation_accuracy": validation,
        "agreement": sum(agreement) / len(agreement),
        "agreement_values": agreement,
        "bits": {
            "average": account.average_bits,
            "average_with_scales": account.average_bits_with_scales,
            "site_average": account.average_site_bits,
            "site_average_with_scales": account.average_site_bits_with_scales,
        },
        "bytes": {
            "file": sizes.file,
            "float_file": sizes.float_file,
            "activations": account.activation_bytes,
            "float_activations": account.float_activation_bytes,
            "weights": account.weight_bytes,
            "float_weights": account.float_weight_bytes,
            "quantized_weights": account.quantized_weight_bytes,
        },
        "float_layers": account.float_layers,
        "sites": [plain_site(site) for site in (*account.sites, *account.weights)],
        "widths": widths,
        "latency_ms": {name: value.to_json() for name, value in latency.by_name.items()},
        "capture_refused": latency.capture_refused,
        "speedup": medians["float"] / medians["packed"],
        "speedup_prepared": medians["float"] / medians["packed_prepared"],
        "speedup_captured": medians["float"] / medians["packed_captured"]
        if "packed_captured" in medians
        else None,
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
        "command": command,
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
        "float": run.teacher.test.accuracy,
        "float_distilled": None if run.distilled is None else run.distilled.test.accuracy,
        "simulated": run.quantized.test.accuracy,
        "packed": run.packed_accuracy,
        "agreement": run.agreement,
        "validation": run.quantized.val.accuracy,
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
