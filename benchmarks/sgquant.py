"""SGQuant's table: a searched bit table per data set and model, then five seeds of it.

For every (data set, model) a search on the validation split (seed 0, post-training) proposes bit
tables of at most the published average bits; the most accurate of their front and the widest of
about equal accuracy are fine-tuned from several float models, and *validation* decides between
them, and between fine-tuning and calibration alone. The table is then fine-tuned and packed from
the float model of every seed.
Rows are appended to ``benchmarks/results/sgquant.jsonl``; those that are there are not run again.

    python benchmarks/sgquant.py --data-root DATA --datasets Cora CiteSeer PubMed Computers
    python benchmarks/sgquant.py --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from accuracy import append_row, read_rows

HERE = Path(__file__).resolve().parent
ROWS = "sgquant.jsonl"
HIDDEN = {"gcn": 32, "agnn": 16, "gat": 64}
MODELS = ("gcn", "agnn", "gat")
# Feng et al. 2020, Table III: accuracy drop in points, average bits, saving.
PUBLISHED = {
    ("Cora", "gcn"): (0.48, 1.22, 26.1),
    ("Cora", "agnn"): (0.41, 2.15, 14.9),
    ("Cora", "gat"): (0.40, 2.58, 12.37),
    ("CiteSeer", "gcn"): (0.28, 1.01, 31.9),
    ("CiteSeer", "agnn"): (0.40, 1.08, 29.59),
    ("CiteSeer", "gat"): (0.40, 2.42, 13.2),
    ("PubMed", "gcn"): (0.08, 2.9, 10.9),
    ("PubMed", "agnn"): (0.13, 3.07, 10.42),
    ("PubMed", "gat"): (0.70, 3.77, 8.47),
    ("Amazon-Computers", "gcn"): (0.18, 3.29, 9.72),
    ("Amazon-Computers", "agnn"): (0.36, 4.0, 7.37),
    ("Amazon-Computers", "gat"): (0.50, 7.53, 4.25),
}


def setting(name: str, model: str, options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Experiment, float settings and fine-tuning settings of a data set and model."""
    from nodebits.data import load_dataset
    from nodebits.jobs.experiment import Experiment, make_spec
    from nodebits.train import find_recipe

    dataset = load_dataset(name, options.data_root, cache=options.cache)
    recipe = find_recipe(model, dataset.task, dataset.name)
    spec = make_spec(dataset, model, recipe, hidden=HIDDEN[model])
    fit = recipe.float_fit.replace(progress=False, epochs=options.float_epochs)
    tuned = recipe.quantized_fit.replace(
        progress=False, epochs=options.epochs, lr=recipe.quantized_fit.lr * options.lr_factor
    )
    return Experiment(dataset, spec), fit, tuned


def tune(experiment: Any, teacher: Any, table: dict[str, Any], fit: Any) -> Any:
    """The fine-tuned model, or the one only calibrated where validation prefers it."""
    from nodebits.methods import make_config

    trained, calibrated = (
        experiment.quantize(
            teacher,
            make_config("sgquant", 8, mode=mode, overrides=table),
            fit,
            warm_start=True,
            train=mode == "qat",
        )
        for mode in ("qat", "ptq")
    )
    return max((trained, calibrated), key=lambda result: result.val.accuracy)


def fixed(model: str) -> dict[str, int]:
    """Widths without a slot: AGNN's logits, which the published count includes."""
    return {"lin2.output": 8} if model == "agnn" else {}


def search(
    experiment: Any, teachers: list[Any], tuned: Any, model: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Finds the table: post-training search, then fine-tuning of points of the front.

    Only tables of at most the published average bits, counted as published, are candidates. Among
    the most accurate points of their front, fine-tuned from several float models, validation
    decides.
    """
    from nodebits.methods import make_config
    from nodebits.search import CostModel, Evaluator, Space, Study, StudySettings, run_study
    from nodebits.search.pareto import pareto_front
    from published_count import published_count

    started = time.monotonic()
    first = teachers[0]
    evaluator = Evaluator(first.model, experiment.problem)
    ptq = {"mode": "ptq", "overrides": fixed(model)}
    account = evaluator.account(make_config("sgquant", 8, **ptq))
    space = evaluator.space = Space.of(account, "sgquant", **ptq)
    target = first.val.accuracy - options.max_drop / 100
    settings = StudySettings("bytes", "tree", target, options.budget, 10, 0)
    study = Study(settings, [slot.name for slot in space.slots])
    run_study(study, evaluator, CostModel(evaluator, space), progress=False)
    searched = time.monotonic() - started

    def bits_of(table: dict[str, Any]) -> float:
        return published_count(experiment.spec, 1, table).average_bits

    def table_of(trial: Any) -> dict[str, Any]:
        return {**fixed(model), **space.table(trial.point)}

    # As printed: 1.0149 is the table's 1.01.
    limit = options.limit * PUBLISHED[experiment.dataset.name, model][1] + 0.005
    allowed = [t for t in study.trials if bits_of(table_of(t)) < limit]
    if not allowed:
        raise SystemExit("no measured table is as small as the published one: raise --budget")
    front = pareto_front(allowed, lambda t: t.bytes, lambda t: t.score)
    # Beside the front, the widest table that is about as accurate as the best: on one float model
    # the front is cheap by luck as well, and the published bits are the limit anyway.
    near = max(t.score for t in allowed) - 0.005
    widest = max((t for t in allowed if t.score >= near), key=lambda t: t.bytes)
    candidates = front[-options.fine_tune :]
    tried: list[dict[str, Any]] = []
    for trial in [*candidates, *([] if widest in candidates else [widest])]:
        results = [
            tune(experiment, teacher, table_of(trial), tuned.replace(seed=seed))
            for seed, teacher in enumerate(teachers)
        ]
        val = statistics.mean(r.val.accuracy for r in results)
        tried.append(
            {"table": table_of(trial), "ptq": trial.score, "val": val, "bytes": trial.bytes}
        )
    chosen = max(tried, key=lambda t: t["val"])
    return {
        "table": chosen["table"],
        "trials": len(study.trials),
        "search_seconds": round(searched, 1),
        "tuned": [{k: v for k, v in t.items() if k != "table"} for t in tried],
        "search_float_val": statistics.mean(t.val.accuracy for t in teachers),
    }


def run(name: str, model: str, options: argparse.Namespace, rows_file: Path) -> None:
    """Runs what is missing of one data set and model."""
    from nodebits.bench.environment import describe_environment
    from published_count import input_baselines, published_count_of

    experiment, fit, tuned = setting(name, model, options)
    name = experiment.dataset.name
    done = {
        row["seed"]
        for row in read_rows(rows_file)
        if (row["dataset"], row["model"]) == (name, model)
    }
    table_file = options.runs / f"{name}-{model}-table.json"

    def teacher_of(seed: int) -> Any:
        checkpoint = options.runs / f"{name}-{model}-{seed}-float.pt"
        return experiment.train_float(fit.replace(seed=seed), checkpoint)

    for seed in range(options.seeds):
        if seed in done:
            continue
        if not table_file.exists():
            teachers = [teacher_of(s) for s in range(options.search_seeds)]
            found = search(experiment, teachers, tuned, model, options)
            table_file.write_text(json.dumps(found))
        teacher = teacher_of(seed)
        found = json.loads(table_file.read_text())
        result = tune(experiment, teacher, found["table"], tuned.replace(seed=seed))
        packed_file = options.runs / f"{name}-{model}-{seed}.safetensors"
        packed = experiment.pack(result, packed_file)
        account = experiment.problem.example("test").call(packed.model.account)
        count = published_count_of(experiment.spec, account)
        baselines = input_baselines(experiment.dataset.data.x)
        row = {
            "dataset": name,
            "model": model,
            "seed": seed,
            "float": teacher.test.accuracy,
            "float_val": teacher.val.accuracy,
            "packed": packed.test.accuracy,
            "agreement": packed.agreement,
            "val": result.val.accuracy,
            "fine_tuned": result.fit is not None,
            **found,
            "published_bits": count.average_bits,
            "published_saving": count.saving,
            "average_bits": account.average_site_bits,
            "average_bits_with_scales": account.average_site_bits_with_scales,
            "activation_bytes": account.activation_bytes,
            "float_activation_bytes": account.float_activation_bytes,
            "weight_bytes": account.quantized_weight_bytes,
            "input_dense_bytes": baselines.dense,
            "input_sparse_bytes": baselines.sparse,
            "input_bit_mask_bytes": baselines.bit_mask,
            "hidden": experiment.spec.hidden_channels,
            "float_epochs": fit.epochs,
            "epochs": tuned.epochs,
            "split": experiment.dataset.notes,
            **describe_environment(),
        }
        append_row(rows_file, row)
        print(
            f"{name} {model} seed {seed}: float {row['float']:.4f} packed {row['packed']:.4f} "
            f"published bits {row['published_bits']:.2f} average {row['average_bits']:.2f}",
            flush=True,
        )


def main() -> None:
    """Runs the grid, or renders the table of what was run."""
    options = parse()
    rows_file = options.results / ROWS
    if options.table:
        from sgquant_table import render

        text = render(read_rows(rows_file), PUBLISHED)
        (options.results / "sgquant.md").write_text(text)
        print(text)
        return
    import torch

    torch.set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.datasets:
        for model in options.models:
            run(name, model, options, rows_file)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--datasets", nargs="+", default=["Cora", "CiteSeer", "PubMed", "Computers"]
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=80, help="configurations the search measures")
    parser.add_argument(
        "--limit", type=float, default=1.0, help="most bits, as a share of the published average"
    )
    parser.add_argument("--max-drop", type=float, default=0.0, help="points of validation accuracy")
    parser.add_argument("--search-seeds", type=int, default=2, help="float models per decision")
    parser.add_argument(
        "--fine-tune", type=int, default=2, help="front points to fine-tune at most"
    )
    parser.add_argument("--float-epochs", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=100, help="of fine-tuning")
    parser.add_argument("--lr-factor", type=float, default=0.5, help="fine-tuning over float rate")
    parser.add_argument("--data-root", help="folder of raw data; default: download")
    parser.add_argument("--cache", help="folder for processed data")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs/sgquant"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only render the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
