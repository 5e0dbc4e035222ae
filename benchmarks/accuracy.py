"""Accuracy of packed low-bit models beside float and beside the published tables.

Every row is one training run, selected on validation; the packed figures come from the model loaded
back from its file. Rows are appended to ``benchmarks/results/accuracy.jsonl``; rows that are there
are not run again, so the command may be stopped and repeated, or run several times at once with
different filters.

    python benchmarks/accuracy.py --data-root DATA --datasets Cora CiteSeer PubMed --seeds 5
    python benchmarks/accuracy.py --data-root DATA --datasets REDDIT-BINARY --models gin --folds 5
    python benchmarks/accuracy.py --table
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DEFAULT_MODELS = {"node": ["gcn", "gat", "gin"], "graph": ["gin"]}


@dataclass(frozen=True)
class Cell:
    """One row to be: a run of one configuration."""

    dataset: str
    model: str
    method: str
    preset: str
    bits: int
    seed: int
    fold: int | None
    label: str = ""

    def key(self) -> str:
        """Identifies the row in the results file."""
        values = list(vars(self).values())
        return json.dumps(values if self.label else values[:-1])


def main() -> None:
    """Runs the grid, or renders the table of what was run."""
    options = parse()
    rows_file = options.results / "accuracy.jsonl"
    if options.table:
        from accuracy_table import render

        text = render(read_rows(rows_file))
        (options.results / "accuracy.md").write_text(text)
        print(text)
        return
    import torch

    from nodebits.data import load_dataset
    from nodebits.train import find_recipe

    torch.set_num_threads(options.threads)
    options.results.mkdir(parents=True, exist_ok=True)
    options.runs.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read_rows(rows_file)}
    for name in options.datasets:
        dataset = load_dataset(name, options.data_root, cache=options.cache)
        raw = load_dataset(name, options.data_root, cache=options.cache, normalize_features=False)
        for cell in grid(options, dataset.name, dataset.task):
            if cell.key() in done:
                continue
            recipe = find_recipe(cell.model, dataset.task, dataset.name)
            started = time.monotonic()
            row = run(cell, raw if recipe.normalize_features is False else dataset, options)
            row["total_seconds"] = round(time.monotonic() - started, 1)
            append_row(rows_file, row)
            print(
                f"{cell.dataset} {cell.model} {cell.method} {cell.bits} bit seed {cell.seed} fold "
                f"{cell.fold}: float {row['float']:.4f} distilled {row['float_distilled']:.4f} "
                f"simulated {row['simulated']:.4f} packed {row['packed']:.4f} "
                f"agreement {row['agreement']:.4f} ({row['total_seconds']} s)",
                flush=True,
            )


def grid(options: argparse.Namespace, dataset: str, task: str) -> Iterator[Cell]:
    """Yields the cells of one data set, all of a seed together: they share the float models."""
    from nodebits.tasks import find_task

    level = find_task(task).level
    splits: list[int | None] = list(range(options.folds)) if level.many_graphs else [None]
    for model in options.models or DEFAULT_MODELS[level.unit]:
        for fold in splits:
            for seed in range(1 if level.many_graphs else options.seeds):
                for method in options.methods:
                    for bits in options.bits:
                        yield Cell(
                            dataset, model, method, options.preset, bits, seed, fold, options.label
                        )


_memory: dict[tuple[Any, ...], Any] = {}


def run(cell: Cell, dataset: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Trains, packs, saves, loads and measures one cell."""
    from nodebits.bench.environment import describe_environment
    from nodebits.jobs.experiment import Experiment, make_spec
    from nodebits.methods import make_config
    from nodebits.tasks import find_task
    from nodebits.train import find_recipe

    recipe = find_recipe(cell.model, dataset.task, dataset.name)
    spec = make_spec(dataset, cell.model, recipe, hidden=options.hidden)
    changes: dict[str, Any] = {"seed": cell.seed}
    if options.batch_size:
        changes["batch_size"] = options.batch_size
    float_changes = dict(changes)
    if options.epochs:
        changes["epochs"] = options.epochs
    if options.float_lr:
        float_changes["lr"] = options.float_lr
    if options.float_epochs:
        float_changes["epochs"] = options.float_epochs
    published = cell.preset == "published"
    float_fit = recipe.float_fit.replace(**float_changes)
    overrides = dict(parse_override(text) for text in options.set)
    method = make_config(cell.method, cell.bits, cell.preset, **overrides)
    fit = recipe.second_fit(cell.bits)
    if published:
        fit = method.published_fit(fit, find_task(dataset.task).level)
    fit = fit.replace(**changes)
    if options.lr:
        fit = fit.replace(lr=options.lr)
    if options.quantizer_lr:
        fit = fit.replace(quantizer_lr=options.quantizer_lr)

    shared = (cell.dataset, cell.model, cell.seed, cell.fold)
    stem = "-".join(str(part) for part in (*shared, spec.hidden_channels) if part is not None)
    if _memory.get("shared") != shared:
        _memory.clear()
        _memory["shared"] = shared
        _memory["experiment"] = Experiment(dataset, spec, cell.fold, recipe.quantized_dropout)
    experiment: Experiment = _memory["experiment"]
    if "float" not in _memory:
        _memory["float"] = experiment.train_float(
            float_fit, options.runs / f"{stem}-float-{digest(float_fit.fingerprint())}.pt"
        )
    teacher = _memory["float"]
    if options.teacher:
        if "teacher" not in _memory:
            _memory["teacher"] = train_teacher(dataset, cell, options)
        # Weights to start from are its own, soft labels the other's.
        teacher = dataclasses.replace(teacher, logits=_memory["teacher"].logits)
    distilled_fit = fit.replace(distill=recipe.quantized_fit.distill)
    distilled_key = f"{stem}-distilled{options.teacher}-{digest(distilled_fit.fingerprint())}.pt"
    if distilled_key not in _memory:
        _memory[distilled_key] = experiment.distill_float(
            teacher, distilled_fit, warm_start=True, checkpoint=options.runs / distilled_key
        )
    distilled = _memory[distilled_key]

    name = f"{stem}-{cell.method}-{cell.preset}-{cell.bits}{cell.label}"
    checkpoint = options.runs / f"{name}.pt"
    warm = not published or method.published_warm_start
    simulated = experiment.quantize(teacher, method, fit, warm_start=warm, checkpoint=checkpoint)
    if simulated.interrupted or teacher.interrupted or distilled.interrupted:
        raise SystemExit("interrupted; run the same command again to continue")
    packed_file = options.runs / f"{name}.safetensors"
    packed = experiment.pack(simulated, packed_file)
    example = experiment.problem.example("test")
    account = example.call(packed.model.account)
    for scratch in (checkpoint, packed_file):
        scratch.unlink(missing_ok=True)
    return {
        "key": cell.key(),
        **vars(cell),
        "overrides": overrides,
        "teacher": options.teacher or cell.model,
        "float": teacher.test.accuracy,
        "float_distilled": distilled.test.accuracy,
        "simulated": simulated.test.accuracy,
        "packed": packed.test.accuracy,
        "agreement": packed.agreement,
        "val": simulated.val.accuracy,
        "best_epoch": simulated.fit.best_epoch if simulated.fit else None,
        "average_bits": account.average_site_bits,
        "average_bits_with_scales": account.average_site_bits_with_scales,
        "sites": [vars(site) for site in account.sites],
        "file_bytes": packed.sizes.file,
        "float_file_bytes": packed.sizes.float_file,
        "spec": spec.to_json(),
        "fit": json.loads(fit.fingerprint()),
        "float_seconds": round(teacher.seconds, 1),
        "quantized_seconds": round(simulated.seconds, 1),
        **describe_environment(),
    }


def train_teacher(dataset: Any, cell: Cell, options: argparse.Namespace) -> Any:
    """Trains another float model, whose soft labels the quantized one learns from."""
    from nodebits.jobs.experiment import Experiment, make_spec
    from nodebits.train import find_recipe

    recipe = find_recipe(options.teacher, dataset.task, dataset.name)
    spec = make_spec(dataset, options.teacher, recipe)
    fit = recipe.float_fit.replace(seed=cell.seed)
    if options.float_epochs:
        fit = fit.replace(epochs=options.float_epochs)
    return Experiment(dataset, spec, cell.fold).train_float(fit)


def digest(text: str) -> str:
    """Returns a short name for settings, so that other settings get another cached float model."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def parse_override(text: str) -> tuple[str, Any]:
    """Splits ``key=value``; the value is read as JSON where it is JSON."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows that are there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a row in one write, so that several processes may share the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(row, sort_keys=True) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["Cora", "CiteSeer", "PubMed"])
    parser.add_argument("--models", nargs="+", help="default: gcn gat gin, or gin for graph sets")
    parser.add_argument("--methods", nargs="+", default=["degree-quant", "uniform"])
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4])
    parser.add_argument("--preset", default="default", choices=["default", "published"])
    parser.add_argument("--seeds", type=int, default=5, help="runs of node-level sets")
    parser.add_argument("--folds", type=int, default=10, help="folds of graph-level sets")
    parser.add_argument("--hidden", type=int, help="hidden width; default: the recipe's")
    parser.add_argument("--epochs", type=int, help="quantized epochs; default: the recipe's")
    parser.add_argument("--float-epochs", type=int, help="float epochs; default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="graphs per step; default: the recipe's")
    parser.add_argument("--lr", type=float, help="rate of quantized training")
    parser.add_argument("--float-lr", type=float, help="rate of float training")
    parser.add_argument("--quantizer-lr", type=float, help="rate of scales and offsets")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="fields of the method's config"
    )
    parser.add_argument(
        "--teacher", default="", help="model whose soft labels are learned from; default: the same"
    )
    parser.add_argument("--label", default="", help="name of these settings, part of the row's key")
    parser.add_argument("--data-root", help="folder of raw data; default: download")
    parser.add_argument("--cache", help="folder for processed data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only render the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
