"""MixQ on Cora's GCN beside the published points: accuracy of the packed model, and its widths.

Every row is one training run, selected on validation; the figures are those of the model loaded
back from its file. Rows are appended to ``benchmarks/results/mixq.jsonl``; rows that are there are
not run again. ``--choose`` tries settings of the choice itself. It records validation accuracies
alone, of seeds that no other row has, in ``benchmarks/results/mixq_choice.jsonl``.

    python benchmarks/mixq.py --data-root DATA --choose
    python benchmarks/mixq.py --data-root DATA --seeds 3
    python benchmarks/mixq.py --table
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from accuracy import append_row, read_rows

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = "mixq.jsonl"
CHOICES = "mixq_choice.jsonl"
# What is tried, at the middle price, and with which seeds.
TRIED = {"settle": (0.2, 0.5), "logit_lr": (0.01, 0.03, 0.1)}
CHOOSING_SEEDS = (100, 101)
CHOOSING_PRICE = 0.1
# Test accuracy in percent and mean width over sites, by lambda; Cora, 2 layers of 128.
PUBLISHED = {
    -1e-8: ("81.58 ± 0.75", 7.69),
    0.1: ("77.72 ± 2.85", 5.82),
    1.0: ("68.68 ± 2.72", 3.84),
}
PRESETS = ("default", "published")
COLUMNS = (
    "preset", "lambda", "runs", "float", "packed", "agreement", "mean width", "average bits",
    "published accuracy", "published mean width",
)  # fmt: skip


def main() -> None:
    """Runs what is missing, or renders the table."""
    options = parse()
    if options.table:
        choices = read_rows(options.results / CHOICES)
        text = render(read_rows(options.results / ROWS)) + render_choices(choices)
        (options.results / "mixq.md").write_text(text)
        print(text)
        return
    import torch

    from nodebits.data import load_dataset
    from nodebits.jobs.experiment import Experiment, make_spec
    from nodebits.train import find_recipe

    torch.set_num_threads(options.threads)
    options.results.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset("Cora", options.data_root, cache=options.cache)
    recipe = find_recipe("gcn", "node", "Cora")
    spec = make_spec(dataset, "gcn", recipe, hidden=128)
    experiment = Experiment(dataset, spec, None, recipe.quantized_dropout)
    if options.choose:
        choose(experiment, recipe, options.results / CHOICES)
        return
    rows_file = options.results / ROWS
    done = {(r["preset"], r["bit_lambda"], r["seed"]) for r in read_rows(rows_file)}
    for seed in range(options.seeds):
        teacher = None
        for preset in options.presets:
            for price in PUBLISHED:
                if (preset, price, seed) in done:
                    continue
                teacher = teacher or experiment.train_float(recipe.float_fit.replace(seed=seed))
                row = run(experiment, recipe, teacher, preset, price, seed)
                append_row(rows_file, row)
                print({k: row[k] for k in (*"preset bit_lambda seed packed".split(), "widths")})


def choose(experiment: Any, recipe: Any, rows_file: Path) -> None:
    """Tries settings and writes their validation accuracy; no test accuracy is written."""
    from nodebits.bench.environment import describe_environment
    from nodebits.methods import make_config

    done = {(*(r[name] for name in TRIED), r["seed"]) for r in read_rows(rows_file)}
    for seed in CHOOSING_SEEDS:
        teacher = experiment.train_float(recipe.float_fit.replace(seed=seed))
        fit = recipe.quantized_fit.replace(seed=seed)
        for values in itertools.product(*TRIED.values()):
            if (*values, seed) in done:
                continue
            settings = dict(zip(TRIED, values, strict=True))
            method = make_config("mixq", 8, bit_lambda=CHOOSING_PRICE, **settings)
            trained = experiment.quantize(teacher, method, fit, warm_start=True)
            row = {**settings, "bit_lambda": CHOOSING_PRICE, "seed": seed}
            row |= {"val": trained.val.accuracy, "seconds": round(trained.seconds, 1)}
            append_row(rows_file, {**row, **describe_environment()})
            print(row, flush=True)


def run(
    experiment: Any, recipe: Any, teacher: Any, preset: str, price: float, seed: int
) -> dict[str, Any]:
    """Trains, packs, saves, loads and measures one model."""
    from nodebits.bench.environment import describe_environment
    from nodebits.engine.weight import PackedWeight
    from nodebits.methods import make_config
    from nodebits.tasks import NODE

    published = preset == "published"
    method = make_config("mixq", 8, preset, bit_lambda=price)
    fit = recipe.quantized_fit
    fit = (method.published_fit(fit, NODE) if published else fit).replace(seed=seed)
    simulated = experiment.quantize(teacher, method, fit, warm_start=True)
    with tempfile.TemporaryDirectory() as folder:
        packed = experiment.pack(simulated, Path(folder) / "model.safetensors")
    account = experiment.problem.example("test").call(packed.model.account)
    widths = {f"{site.layer}.{site.site}": site.bits for site in account.sites if site.at_site}
    for path, module in packed.model.module.named_modules():
        if isinstance(module, PackedWeight):
            widths[path] = module.bits
    return {
        "preset": preset,
        "bit_lambda": price,
        "seed": seed,
        "float": teacher.test.accuracy,
        "val": simulated.val.accuracy,
        "packed": packed.test.accuracy,
        "agreement": packed.agreement,
        "widths": widths,
        "average_bits": account.average_site_bits,
        "seconds": round(simulated.seconds, 1),
        "fit": json.loads(fit.fingerprint()),
        "method": method.to_json(),
        "spec": experiment.spec.to_json(),
        **describe_environment(),
    }


def render(rows: list[dict[str, Any]]) -> str:
    """Returns the table of all rows."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["preset"], row["bit_lambda"]].append(row)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for (preset, price), group in sorted(groups.items()):
        accuracy, width = PUBLISHED[price]
        cells = [
            preset,
            f"{price:g}",
            str(len(group)),
            spread([100 * row["float"] for row in group]),
            spread([100 * row["packed"] for row in group]),
            f"{min(row['agreement'] for row in group):.4f}",
            spread([statistics.mean(row["widths"].values()) for row in group]),
            f"{statistics.mean(row['average_bits'] for row in group):.2f}",
            accuracy,
            f"{width:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return HEADER + "\n".join(lines) + "\n"


def render_choices(rows: list[dict[str, Any]]) -> str:
    """Returns the table of tried settings, empty where none was tried."""
    groups: dict[tuple[float, ...], list[float]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in TRIED)].append(100 * row["val"])
    if not groups:
        return ""
    columns = (*TRIED, "runs", "validation")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for values, accuracies in sorted(groups.items()):
        cells = [*map(str, values), str(len(accuracies)), spread(accuracies)]
        lines.append("| " + " | ".join(cells) + " |")
    return CHOICES_HEADER + "\n".join(lines) + "\n"


HEADER = """# MixQ, Cora, GCN of two layers of 128

Test accuracy in percent at the best validation epoch, mean ± standard deviation over seeds.
*Packed* is the model loaded back from its file.
*Mean width* is over sites, as in the paper; *average bits* is over the values of all activations.
*Agreement* is the smallest share of test rows where packed and simulated model predict alike.

"""
CHOICES_HEADER = f"""
## How `settle` and `logit_lr` were chosen

Validation accuracy in percent at lambda {CHOOSING_PRICE}, of seeds that no row above has.

"""


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--choose", action="store_true", help="try settings, on validation")
    parser.add_argument("--cache", help="folder for processed data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="render the rows that are there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
