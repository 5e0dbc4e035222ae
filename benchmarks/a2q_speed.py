"""Milliseconds of packed forwards: A2Q beside one width for all rows and beside float.

    python benchmarks/a2q_speed.py --data-root DATA [--json benchmarks/results/a2q/speed.json]

Training is a few epochs: enough for the widths to move and be fixed at the target, too little for
accuracy. Widths of a longer training would differ, at the same average. Every model is timed from
float features and ``edge_index`` (``float`` is PyG on the same), and again on a prepared graph and
rows packed ahead. Bytes are those of the model's file and of the packed features' file.
``int4, input 1`` is what a narrow raw input alone gives.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nodebits import ModelSpec, load_dataset
from nodebits.bench.environment import describe_environment
from nodebits.bench.timing import sample_interleaved
from nodebits.jobs.experiment import Experiment
from nodebits.methods import make_config
from nodebits.train import FitConfig

CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "int4": ("uniform", 4, {}),
    "int4, input 1": ("uniform", 4, {"overrides": {"convs.0.lin.input": 1}}),
    "int2": ("uniform", 2, {}),
    "a2q-2.5": ("a2q", 2, {"target_bits": 2.5, "count": "all"}),
    "a2q-2.0": ("a2q", 2, {"target_bits": 2.0, "count": "all"}),
    "a2q-1.7": ("a2q", 2, {"target_bits": 1.7, "count": "all"}),
}


def main() -> None:
    """Measures every data set and prints a line per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--datasets", nargs="+", default=["PubMed", "Computers"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for name in options.datasets for row in measure(name, options)]
    if options.json:
        record = {"rows": rows, "epochs": options.epochs, **describe_environment()}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains, packs and times the GCNs of one data set, interleaved."""
    dataset = load_dataset(name, options.data_root, cache=options.cache)
    spec = ModelSpec("gcn", dataset.num_features, 64, dataset.num_classes)
    experiment = Experiment(dataset, spec)
    fit = FitConfig(epochs=options.epochs, seed=0)
    teacher = experiment.train_float(fit)
    example = experiment.problem.example("test")
    models: dict[str, Any] = {"float": teacher.model.eval()}
    rows: dict[str, dict[str, Any]] = {"float": {}}
    for label, (method, bits, settings) in CASES.items():
        trained = experiment.quantize(
            teacher, make_config(method, bits, **settings), fit, warm_start=True
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            packed = experiment.pack(trained, path)
            account = example.call(packed.model.account)
            features = packed.model.pack_input(example.x, edge_index=example.edge_index)
            packed.model.save_input(features, Path(folder) / "x.safetensors")
            rows[label] = {
                "average_bits": account.average_site_bits,
                "average_bits_with_scales": account.average_site_bits_with_scales,
                "file_bytes": path.stat().st_size,
                "features_file_bytes": (Path(folder) / "x.safetensors").stat().st_size,
            }
        models[label] = packed.model
    with torch.no_grad():
        calls: dict[str, Callable[[], Any]] = {
            label: (lambda m=model: example.call(m)) for label, model in models.items()
        }
        for label, model in models.items():
            if label == "float":
                continue
            graph = model.prepare_graph(example.edge_index, example.x.size(0))
            ready = model.pack_input(example.x, edge_index=graph)
            calls[f"{label}, packed ahead"] = lambda m=model, x=ready, g=graph: m.predict(x, g)
            rows[f"{label}, packed ahead"] = rows[label]
        samples = sample_interleaved(calls, options.repeats, warmup=2)
    found = []
    for label, seconds in samples.items():
        low, median, high = torch.tensor(seconds).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        milliseconds = {"median_ms": 1e3 * median, "p25_ms": 1e3 * low, "p75_ms": 1e3 * high}
        found.append({"dataset": name, "model": label, **milliseconds, **rows[label]})
        print(
            f"{name:10} {label:28} {1e3 * median:8.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})",
            {key: round(value, 2) for key, value in rows[label].items()},
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
