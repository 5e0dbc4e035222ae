"""What the bit search is worth: against random search, by granularity, and its latency model.

Rows are appended to ``benchmarks/results/search.jsonl``; rows that are there are not run again.
Nothing is trained but the float models: tables are quantized after training, as in the search.

    python benchmarks/search_study.py compare --data-root DATA --datasets Cora CiteSeer
    python benchmarks/search_study.py granularity --data-root DATA --datasets Cora PubMed
    python benchmarks/search_study.py latency --data-root DATA --datasets PubMed Computers
    python benchmarks/search_study.py table
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from accuracy import append_row, digest, read_rows

HERE = Path(__file__).resolve().parent
ROWS = "search.jsonl"
GRANULARITIES = ("uniform", "layer", "component", "bucket")
# Random tables whose latency is predicted and measured.
TABLES = 24


class Setting:
    """Float model of a seed, its evaluator, and the search on it."""

    def __init__(self, name: str, model: str, seed: int, options: argparse.Namespace) -> None:
        from nodebits.data import load_dataset
        from nodebits.jobs.experiment import Experiment, make_spec
        from nodebits.search import Evaluator
        from nodebits.train import find_recipe

        dataset = load_dataset(name, options.data_root, cache=options.cache)
        recipe = find_recipe(model, dataset.task, dataset.name)
        self.experiment = Experiment(dataset, make_spec(dataset, model, recipe))
        fit = recipe.float_fit.replace(progress=False, epochs=options.float_epochs, seed=seed)
        stem = f"{dataset.name}-{model}-{seed}-{digest(fit.fingerprint())}"
        self.teacher = self.experiment.train_float(fit, options.runs / f"{stem}.pt")
        self.evaluator = Evaluator(self.teacher.model, self.experiment.problem)
        self.target = self.teacher.val.accuracy - options.max_drop / 100
        self.seed, self.options = seed, options

    def space(self, granularity: str = "component") -> Any:
        """The slots of a granularity, weights included."""
        from nodebits.methods import make_config
        from nodebits.search import Space

        account = self.evaluator.account(make_config("sgquant", 8, mode="ptq"))
        return Space.of(account, "sgquant", granularity=granularity, mode="ptq")

    def search(self, space: Any, strategy: str, objective: str, table: Any = None) -> Any:
        """Runs a study of the budget."""
        from nodebits.search import CostModel, Study, StudySettings, run_study

        self.evaluator.space = space
        settings = StudySettings(
            objective, strategy, self.target, self.options.budget, 10, self.seed
        )
        study = Study(settings, [slot.name for slot in space.slots])
        costs = CostModel(self.evaluator, space, table)
        return run_study(study, self.evaluator, costs, progress=False)

    def describe(self) -> dict[str, Any]:
        """What every row says."""
        return {
            "float_val": self.teacher.val.accuracy,
            "float_test": self.teacher.test.accuracy,
            "target": self.target,
            "budget": self.options.budget,
        }


def point_row(setting: Setting, space: Any, trial: Any) -> dict[str, Any]:
    """Costs and accuracies of a trial; the test split is asked once the choice is made."""
    return {
        "bytes": trial.bytes,
        "bits": trial.bits,
        "val": trial.score,
        "test": setting.evaluator.metrics(space.config(trial.point), "test").value,
        "table": space.table(trial.point),
    }


def compare(setting: Setting, done: set[str], key: list[Any]) -> list[dict[str, Any]]:
    """Least bytes that reach the target, by strategy, at equal budget."""
    rows = []
    space = setting.space()
    for strategy in setting.options.strategies:
        if json.dumps([*key, strategy]) in done:
            continue
        started = time.monotonic()
        study = setting.search(space, strategy, "bytes")
        best = study.best()
        if best is None:
            raise SystemExit(f"{key} {strategy}: none of {len(study.trials)} tables is feasible")
        rows.append(
            {
                "key": json.dumps([*key, strategy]),
                "strategy": strategy,
                "slots": len(space.slots),
                "trials": len(study.trials),
                "feasible": len(study.feasible()),
                "best": point_row(setting, space, best),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    return rows


def granularity(setting: Setting, done: set[str], key: list[Any]) -> list[dict[str, Any]]:
    """Pareto front of validation accuracy and bytes, by what shares a width."""
    rows = []
    for name in GRANULARITIES:
        if json.dumps([*key, name]) in done:
            continue
        space = setting.space(name)
        study = setting.search(space, "tree", "bytes")
        rows.append(
            {
                "key": json.dumps([*key, name]),
                "granularity": name,
                "slots": len(space.slots),
                "trials": len(study.trials),
                "front": [point_row(setting, space, trial) for trial in study.front()],
            }
        )
    return rows


def latency(setting: Setting, done: set[str], key: list[Any]) -> list[dict[str, Any]]:
    """Error of predicted latencies, and what ``latency`` finds beside ``bits``."""
    from nodebits.search.latency import interleaved, measure_table

    if json.dumps(key) in done:
        return []
    evaluator, repeats = setting.evaluator, setting.options.repeats
    space = setting.space()

    def packed(point: Any) -> Any:
        return evaluator.packed(space.config(point))

    table = measure_table(space, packed, evaluator.example(), repeats=repeats)
    rng = random.Random(setting.seed)
    points = [space.random(rng) for _ in range(TABLES)]
    chosen = {
        objective: setting.search(space, "tree", objective, table).best()
        for objective in ("bits", "latency")
    }
    models = {str(n): packed(p) for n, p in enumerate(points)}
    models |= {name: packed(trial.point) for name, trial in chosen.items()}
    samples = interleaved(models, evaluator.example(), repeats)
    measured = {name: statistics.median(values) for name, values in samples.items()}
    # Round by round, so that drift of the machine cancels.
    ratio = statistics.median(
        b / a for a, b in zip(samples["latency"], samples["bits"], strict=True)
    )
    return [
        {
            "key": json.dumps(key),
            "reference_ms": table.reference,
            "tables": [
                {
                    "widths": list(p),
                    "predicted": table.predict(space, p),
                    "measured": measured[str(n)],
                }
                for n, p in enumerate(points)
            ],
            "chosen": {
                name: point_row(setting, space, trial)
                | {
                    "predicted_ms": table.predict(space, trial.point),
                    "measured_ms": measured[name],
                }
                for name, trial in chosen.items()
            },
            "bits_over_latency": ratio,
        }
    ]


STUDIES = {"compare": compare, "granularity": granularity, "latency": latency}


def main() -> None:
    """Runs a study, or renders the tables of what was run."""
    options = parse()
    rows_file = options.results / ROWS
    if options.study == "table":
        from search_table import write

        write(read_rows(rows_file), options.results)
        return
    import torch

    from nodebits import ops
    from nodebits.bench.environment import describe_environment

    torch.set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    for name in options.datasets:
        for model in options.models:
            for seed in range(options.seeds):
                key = [options.study, name, model, seed]
                done = {row["key"] for row in read_rows(rows_file)}
                setting = Setting(name, model, seed, options)
                for row in STUDIES[options.study](setting, done, key):
                    named = dict(zip(("study", "dataset", "model", "seed"), key, strict=True))
                    stamp = {**describe_environment(), "isa": ops.describe()["isa"]}
                    append_row(rows_file, {**named, **row, **setting.describe(), **stamp})
                    print(row["key"], row.get("best", {}).get("bytes", ""), flush=True)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=[*STUDIES, "table"])
    parser.add_argument("--datasets", nargs="+", default=["Cora", "CiteSeer"])
    parser.add_argument("--models", nargs="+", default=["gat"])
    parser.add_argument("--strategies", nargs="+", default=["tree", "random", "tpe"])
    parser.add_argument("--seeds", type=int, default=5, help="float models and searches")
    parser.add_argument("--budget", type=int, default=80, help="configurations a search measures")
    parser.add_argument("--max-drop", type=float, default=0.5, help="points of validation accuracy")
    parser.add_argument("--float-epochs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds")
    parser.add_argument("--data-root", help="folder of raw data; default: download")
    parser.add_argument("--cache", help="folder for processed data")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"), help="scratch folder")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
