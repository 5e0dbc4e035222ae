"""Seconds of one training step: float (PyG as it is), plain QAT, Degree-Quant.

    python benchmarks/train_step.py --data-root DATA [--json benchmarks/results/train_step.json]

The steps of the compared models are interleaved in one run, so that a noisy machine is noisy for
all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch_geometric.loader import DataLoader

from nodebits import (
    DegreeQuantConfig,
    ModelSpec,
    UniformConfig,
    build_model,
    graph_scope,
    load_dataset,
    prepare,
)
from nodebits.bench.environment import describe_environment
from nodebits.tasks import find_task

CASES = [("Cora", "gcn"), ("PubMed", "gcn"), ("REDDIT-BINARY", "gin")]


def main() -> None:
    """Measures every case and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'case':20} {'float':>9} {'QAT':>9} {'DQ':>9} {'DQ perc.':>9}   DQ/QAT  DQ/float")
    for dataset, model in CASES:
        row = measure(dataset, model, options)
        rows.append(row)
        s = row["median_s"]
        times = " ".join(f"{seconds:9.4f}" for seconds in s.values())
        ratios = f"{row['dq_over_qat']:6.2f}  {row['dq_over_float']:8.2f}"
        print(f"{dataset + ' ' + model:20} {times}   {ratios}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"rows": rows, "bits": options.bits, **describe_environment()}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def measure(dataset: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of interleaved steps on one data set."""
    loaded = load_dataset(dataset, options.data_root, cache=options.cache)
    graph_task = find_task(loaded.task).level.many_graphs
    spec = ModelSpec(
        model,
        loaded.num_features,
        64,
        loaded.num_classes,
        num_layers=5 if graph_task else 2,
        task=loaded.task,
        norm="batch_norm" if graph_task else None,
    )
    base = build_model(spec)
    bits = options.bits
    models = {
        "float": base,
        "qat": prepare(base, UniformConfig(bits=bits)),
        "degree_quant": prepare(base, DegreeQuantConfig(bits=bits)),
        "degree_quant_percentile": prepare(base, DegreeQuantConfig(bits=bits, ranges="percentile")),
    }
    optimizers = {name: torch.optim.Adam(m.parameters(), 1e-3) for name, m in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    if graph_task:
        graphs = [loaded.graphs[i] for i in range(128)]
        data = next(iter(DataLoader(graphs, 128)))
    else:
        data = loaded.data
    for step in range(options.steps + 3):
        for name, net in models.items():
            net.train()
            if graph_task:  # a training loop meets every batch once: nothing is cached
                data.edge_index = data.edge_index.clone()
            started = time.perf_counter()
            optimizers[name].zero_grad()
            if graph_task:
                with graph_scope(batch=data.batch):
                    out = net(data.x, data.edge_index, batch=data.batch)
                loss = torch.nn.functional.cross_entropy(out, data.y)
            else:
                out = net(data.x, data.edge_index)
                mask = data.train_mask
                loss = torch.nn.functional.cross_entropy(out[mask], data.y[mask])
            loss.backward()
            optimizers[name].step()
            if step >= 3:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "dataset": dataset,
        "model": model,
        "median_s": median,
        "minimum_s": {name: min(values) for name, values in seconds.items()},
        "dq_over_qat": median["degree_quant"] / median["qat"],
        "dq_over_float": median["degree_quant"] / median["float"],
        "steps": options.steps,
    }


if __name__ == "__main__":
    main()
