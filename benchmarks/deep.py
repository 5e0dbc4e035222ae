"""Deep low-bit networks: accuracy by propagation, range, width and depth, packed beside float.

Every row is one training run, selected on validation; packed figures come from the model loaded
back from its file. Rows are appended to ``benchmarks/results/deep/STUDY.jsonl``; rows that are
there are not run again, so the command may be stopped and repeated. Float rows (32 bits) hold the
model's spec, which is that of the quantized rows beside them. Rows of SMP and
elastic propagation need ``pip install examples/nodebits-smoothness``.

    python benchmarks/deep.py ablation --data-root DATA
    python benchmarks/deep.py table --data-root DATA --datasets Cora CiteSeer PubMed CS
    python benchmarks/deep.py depth --data-root DATA --datasets Cora CiteSeer --seeds 3
    python benchmarks/deep_table.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accuracy import append_row, digest, read_rows

RESULTS = Path(__file__).resolve().parent / "results" / "deep"
DEPTHS = (2, 4, 8, 16, 32, 64)
# Name in the tables -> (model, fields of its spec).
PROPAGATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "APPNP": ("appnp", {}),
    "SMP-adjacency": ("smp", {"operator": "adjacency", "multiplier": "basic"}),
    "SMP-Laplacian": ("smp", {"operator": "laplacian", "multiplier": "basic"}),
    "elastic": ("elastic", {}),
}
# Families of the depth study; the depth is the number of steps or of layers.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "APPNP": ("appnp", "steps", {}),
    "SMP": ("smp", "steps", {"multiplier": "basic"}),
    "DAGNN": ("dagnn", "steps", {}),
    "GCNII": ("gcnii", "num_layers", {}),
    "GCN + residual": ("deepgcn", "num_layers", {}),
    "GCN": ("gcn", "num_layers", {}),
}


@dataclass(frozen=True)
class Cell:
    """One row to be. ``bits`` 32 is float training the same way: warm start, distillation."""

    study: str
    dataset: str
    name: str
    model: str
    options: dict[str, Any]
    ranges: str
    bits: int
    seed: int
    extra: dict[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """Identifies the row in the results file."""
        return key_of(vars(self))


def key_of(row: dict[str, Any]) -> str:
    """:meth:`Cell.key` of a row."""
    return json.dumps([row[f.name] for f in dataclasses.fields(Cell)], sort_keys=True)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yields the cells of a study, seed by seed: a stopped run leaves a whole table of fewer."""
    for dataset in options.datasets:
        for seed in range(options.first_seed, options.seeds):
            yield from _STUDIES[options.study](options, dataset, seed)


def _ablation(options: argparse.Namespace, dataset: str, seed: int) -> Iterator[Cell]:
    for name in options.names or PROPAGATIONS:
        model, fields = PROPAGATIONS[name]
        yield Cell("ablation", dataset, name, model, fields, "none", 32, seed)
        for bits in options.bits or (2, 4, 8):
            for ranges in options.ranges or ("minmax", "grid", "learned", "scale"):
                yield Cell("ablation", dataset, name, model, fields, ranges, bits, seed)


def _snap(options: argparse.Namespace, dataset: str, seed: int) -> Iterator[Cell]:
    model, fields = PROPAGATIONS["APPNP"]
    for snap in ("bt", "bt_skew"):
        yield Cell("snap", dataset, "APPNP", model, fields, "learned", 2, seed, {"snap": snap})


def _table(options: argparse.Namespace, dataset: str, seed: int) -> Iterator[Cell]:
    for name in options.names or ("APPNP", "SMP-adjacency"):
        model, fields = PROPAGATIONS[name]
        yield Cell("table", dataset, name, model, fields, "none", 32, seed)
        for bits in options.bits or (8, 4, 2):
            for ranges in options.ranges or ("scale",):
                yield Cell("table", dataset, name, model, fields, ranges, bits, seed)


def _depth(options: argparse.Namespace, dataset: str, seed: int) -> Iterator[Cell]:
    for name in options.names or FAMILIES:
        model, axis, fields = FAMILIES[name]
        for depth in options.depths:
            chosen = {axis: depth, **fields}
            for bits in options.bits or (32, 8, 4, 2):
                for ranges in ("none",) if bits == 32 else options.ranges or ("scale",):
                    yield Cell("depth", dataset, name, model, chosen, ranges, bits, seed)


_STUDIES = {"ablation": _ablation, "snap": _snap, "table": _table, "depth": _depth}
_memory: dict[str, Any] = {}


def run(cell: Cell, dataset: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Trains, packs, saves, loads and measures one cell."""
    from nodebits.bench.environment import describe_environment
    from nodebits.jobs.experiment import Experiment, make_spec
    from nodebits.methods import make_config
    from nodebits.train import find_recipe

    chosen = dict(cell.options)
    # Rows say the constraint by SMP's options; its models are those of examples/.
    model = cell.model
    if chosen.pop("multiplier", "none") != "none":
        model = f"smp-{chosen.pop('operator', 'adjacency')}"
    recipe = find_recipe(model, dataset.task, dataset.name)
    layers = chosen.pop("num_layers", None)
    spec = make_spec(dataset, model, recipe, layers=layers, **chosen)
    float_fit = recipe.float_fit.replace(
        seed=cell.seed, epochs=options.float_epochs, progress=False
    )
    fit = recipe.quantized_fit.replace(seed=cell.seed, epochs=options.epochs, progress=False)
    shared = f"{cell.dataset}-{digest(repr(spec))}-{cell.seed}-{digest(float_fit.fingerprint())}"
    if _memory.get("shared") != shared:
        _memory.clear()
        _memory["shared"] = shared
        experiment = Experiment(dataset, spec, None, recipe.quantized_dropout)
        _memory["experiment"] = experiment
        _memory["float"] = experiment.train_float(float_fit, options.runs / f"{shared}-float.pt")
    experiment, teacher = _memory["experiment"], _memory["float"]
    stem = f"{shared}-{digest(cell.key())}"
    row = {
        **vars(cell),
        "float": teacher.test.accuracy,
        "float_val": teacher.val.accuracy,
        "epochs": [float_fit.epochs, fit.epochs],
    }
    if cell.bits == 32 or cell.study == "snap":
        row["spec"] = spec.to_json()
    checkpoint = options.runs / f"{stem}.pt"
    if cell.bits == 32:
        trained = experiment.distill_float(teacher, fit, True, checkpoint)
    else:
        options_of_method = {"ranges": cell.ranges, "snap": "none", **cell.extra}
        method = make_config("smp", cell.bits, **options_of_method)
        trained = experiment.quantize(teacher, method, fit, True, checkpoint=checkpoint)
    if trained.interrupted or teacher.interrupted:
        raise SystemExit("interrupted; run the same command again to continue")
    row |= {
        "val": trained.val.accuracy,
        "simulated": trained.test.accuracy,
        "best_epoch": trained.fit.best_epoch if trained.fit else None,
        "seconds": round(trained.seconds, 1),
        "float_seconds": round(teacher.seconds, 1),
    }
    if cell.bits != 32:
        path = options.runs / f"{stem}.safetensors"
        packed = experiment.pack(trained, path)
        account = experiment.problem.example("test").call(packed.model.account)
        row |= {
            "packed": packed.test.accuracy,
            "agreement": packed.agreement,
            "average_bits": account.average_site_bits,
            "file_bytes": packed.sizes.file,
            "float_file_bytes": packed.sizes.float_file,
        }
        path.unlink(missing_ok=True)
    checkpoint.unlink(missing_ok=True)
    return {**row, **describe_environment()}


def main() -> None:
    """Runs a study."""
    options = parse()
    import torch

    from nodebits.data import load_dataset

    torch.set_num_threads(options.threads)
    for folder in (options.results, options.runs):
        folder.mkdir(parents=True, exist_ok=True)
    rows_file = options.results / f"{options.study}.jsonl"
    done = {key_of(row) for row in read_rows(rows_file)}
    datasets: dict[str, Any] = {}
    for cell in cells(options):
        if cell.key() in done:
            continue
        if cell.dataset not in datasets:
            datasets[cell.dataset] = load_dataset(
                cell.dataset, options.data_root, cache=options.cache
            )
        started = time.process_time()
        row = run(cell, datasets[cell.dataset], options)
        row["cpu_seconds"] = round(time.process_time() - started, 1)
        append_row(rows_file, row)
        print(
            f"{cell.study} {cell.dataset} {cell.name} {cell.options} {cell.ranges} {cell.bits} bit "
            f"seed {cell.seed}: float {row['float']:.4f} val {row['val']:.4f} simulated "
            f"{row['simulated']:.4f} packed {row.get('packed', float('nan')):.4f} agreement "
            f"{row.get('agreement', float('nan')):.4f} ({row['cpu_seconds']} s)",
            flush=True,
        )


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(_STUDIES))
    parser.add_argument("--datasets", nargs="+", default=["Cora"])
    parser.add_argument("--names", nargs="+", help="propagations or families; default: all")
    parser.add_argument("--bits", nargs="+", type=int)
    parser.add_argument("--ranges", nargs="+")
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=150, help="quantized training")
    parser.add_argument("--float-epochs", type=int, default=200)
    parser.add_argument("--data-root", help="folder of raw data; default: download")
    parser.add_argument("--cache", help="folder for processed data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--runs", type=Path, default=Path("runs/deep"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
