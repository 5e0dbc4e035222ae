r"""Blocks of the field with edge features, on real tasks: float beside packed 8, 4 and 2 bits.

Every row is one training run, selected on validation; packed figures are of the model that was
loaded back from its file. The float model of a seed is trained once. Rows are appended, and those
that are there are not run again. ``NAME:N`` takes the first N graphs of each part of a split.
A row of 32 bits is the float model after the training that quantized models get.

    python benchmarks/real_tasks.py --data-root DATA --datasets ESOL AQSOL ZINC12k_alt
    python benchmarks/real_tasks.py --table benchmarks/results/real_tasks.jsonl
    python benchmarks/real_tasks.py --data-root DATA --datasets ESOL --bits 4 \
        --set message_bits=8 --label messages-8
    python benchmarks/real_tasks.py --data-root DATA --datasets MNIST:200 --bits 8 4 32 \
        --epochs 16 --more-epochs 4 --lr 0.01 --more-lr 0.002
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy import append_row, digest, parse_override, read_rows
from real_tasks_table import ALIKE, render

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Runs the grid, or prints the table of what was run."""
    options = parse()
    if options.table:
        print(render(read_rows(options.table)), end="")
        return
    import torch

    from real_tasks_data import load

    torch.set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read_rows(options.out)}
    for name in options.datasets:
        dataset = load(name, options.data_root, options.cache)
        for cell in grid(options, name):
            if cell["key"] in done:
                continue
            started = time.monotonic()
            row = {**cell, **run(cell, dataset, options)}
            row["total_seconds"] = round(time.monotonic() - started, 1)
            append_row(options.out, row)
            print(
                f"{name} {cell['model']} seed {cell['seed']} {cell['bits']} bits {cell['label']}: "
                f"float {row['float']:.4f} simulated {row['simulated']:.4f} packed "
                f"{row['packed']:.4f} agreement {row['agreement']:.4f} ({row['total_seconds']} s)",
                flush=True,
            )


def grid(options: argparse.Namespace, dataset: str) -> Iterator[dict[str, Any]]:
    """Yields what identifies a row, all rows of a float model together."""
    for seed in range(options.seeds):
        for model in options.models:
            for bits in options.bits:
                cell = {
                    "dataset": dataset,
                    "model": model,
                    "bits": bits,
                    "seed": seed,
                    "label": options.label or (ALIKE if bits == 32 else ""),
                }
                yield {"key": json.dumps(list(cell.values())), **cell}


_memory: dict[tuple[Any, ...], Any] = {}


def run(cell: dict[str, Any], dataset: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Trains, packs, saves, loads and measures one cell, as ``nodebits quantize`` does."""
    from nodebits.bench.environment import describe_environment
    from nodebits.jobs.experiment import Experiment
    from nodebits.jobs.own_model import OwnModel, own_recipe
    from nodebits.methods import make_config
    from real_tasks_data import degree_histogram, model_inputs
    from real_tasks_models import MODELS

    recipe = own_recipe(dataset.task)
    arguments = {**model_inputs(dataset), **MODELS[cell["model"]]}
    arguments |= {"hidden": options.hidden, "layers": options.layers}
    if arguments["conv"] == "pna":
        arguments["degrees"] = degree_histogram(dataset)
    spec = OwnModel("real_tasks_models:EdgeModel", dataset.task, arguments)
    more_lr = options.more_lr or options.lr
    float_fit, fit = (
        config.replace(
            seed=cell["seed"],
            epochs=epochs,
            lr=lr or config.lr,
            batch_size=options.batch_size or config.batch_size,
            quantizer_lr=options.quantizer_lr or config.quantizer_lr,
            progress=False,
        )
        for config, epochs, lr in (
            (recipe.float_fit, options.epochs, options.lr),
            (recipe.second_fit(cell["bits"]), options.more_epochs or options.epochs, more_lr),
        )
    )
    overrides = dict(parse_override(text) for text in options.set)
    method = make_config(options.method, cell["bits"], **overrides)

    shared = (cell["dataset"], cell["model"], cell["seed"])
    stem = "-".join(str(part) for part in (*shared, digest(repr(spec))))
    if shared not in _memory:
        _memory.clear()
        experiment = Experiment(dataset, spec)
        kept = options.runs / f"{stem}-float-{digest(float_fit.fingerprint())}.pt"
        _memory[shared] = experiment, experiment.train_float(float_fit, kept)
    experiment, teacher = _memory[shared]
    simulated = experiment.quantize(teacher, method, fit, warm_start=True)
    if simulated.interrupted or teacher.interrupted:
        raise SystemExit("interrupted; run the same command again to continue")
    file = options.runs / f"{stem}-{cell['bits']}{cell['label']}.safetensors"
    packed = experiment.pack(simulated, file)
    example = experiment.problem.example("val")
    account = example.call(packed.model.account)
    file.unlink()
    return {
        "method": options.method,
        "overrides": overrides,
        "metric": experiment.problem.task.metric.name,
        "float": teacher.test.value,
        "float_val": teacher.val.value,
        "simulated": simulated.test.value,
        "packed": packed.test.value,
        "val": simulated.val.value,
        "agreement": packed.agreement,
        "best_epoch": None if simulated.fit is None else simulated.fit.best_epoch,
        "average_bits": account.average_site_bits,
        "file_bytes": packed.sizes.file,
        "float_file_bytes": packed.sizes.float_file,
        "arguments": arguments,
        "float_epochs": options.epochs,
        "fit": json.loads(fit.fingerprint()),
        "float_seconds": round(teacher.seconds, 1),
        "quantized_seconds": round(simulated.seconds, 1),
        **describe_environment(),
    }


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    models = ["GINE", "GatedGCN", "GATv2", "PNA", "GNN+"]
    parser.add_argument("--datasets", nargs="+", default=["ESOL", "AQSOL", "ZINC12k_alt"])
    parser.add_argument("--models", nargs="+", default=models, choices=models)
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4, 2])
    parser.add_argument("--method", default="degree-quant")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40, help="of the float model")
    parser.add_argument("--more-epochs", type=int, help="of quantized training; default: as many")
    parser.add_argument("--lr", type=float, help="of the float model; default: the recipe's")
    parser.add_argument(
        "--more-lr", type=float, help="of quantized training; default: as --lr, or the recipe's"
    )
    parser.add_argument("--quantizer-lr", type=float, help="of scales; default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="graphs of both; default: the recipe's")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="fields of the method's config"
    )
    parser.add_argument("--label", default="", help="name of these settings, part of a row's key")
    parser.add_argument("--data-root", type=Path, help="folder of raw data")
    parser.add_argument("--cache", type=Path, help="folder of processed data")
    parser.add_argument("--out", type=Path, default=RESULTS / "real_tasks.jsonl")
    parser.add_argument("--runs", type=Path, default=Path("runs/real_tasks"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the table of a file")
    options = parser.parse_args()
    if options.data_root is None and options.table is None:
        parser.error("--data-root is missing: the folder of raw data")
    return options


if __name__ == "__main__":
    main()
