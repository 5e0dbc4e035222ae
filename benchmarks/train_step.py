"""Seconds of one training step: float (PyG as it is), plain QAT, Degree-Quant; and of epochs.

    python benchmarks/train_step.py --data-root DATA --epochs 8

The steps of the compared models are interleaved in one run, so that a noisy machine is noisy for
all of them. ``--epochs`` trains PROTEINS besides, with the recipe of GIN: PyG's model on labels,
and models that are quantized by default presets with a teacher, an epoch each in turn. An epoch
there is all that ``fit`` does in one: batches, steps, validation. ``--json
benchmarks/results/train_step.json`` keeps the figures.
"""

from __future__ import annotations

import argparse
import copy
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
from nodebits.graph import constant_inputs
from nodebits.jobs.data import recipe_of
from nodebits.jobs.experiment import Experiment, make_spec
from nodebits.tasks import find_task
from nodebits.train.loop import Loop

CASES = [("Cora", "gcn"), ("PubMed", "gcn"), ("REDDIT-BINARY", "gin"), ("PROTEINS", "gin")]
# First epochs find ranges, which later ones keep.
WARM_EPOCHS = 2


def main() -> None:
    """Measures every case and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15, help="0 measures epochs alone")
    parser.add_argument("--epochs", type=int, default=0, help="of PROTEINS")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'case':20} {'float':>9} {'QAT':>9} {'DQ':>9} {'DQ perc.':>9}   DQ/QAT  DQ/float")
    for dataset, model in CASES if options.steps else []:
        row = measure(dataset, model, options)
        rows.append(row)
        s = row["median_s"]
        times = " ".join(f"{seconds:9.4f}" for seconds in s.values())
        ratios = f"{row['dq_over_qat']:6.2f}  {row['dq_over_float']:8.2f}"
        print(f"{dataset + ' ' + model:20} {times}   {ratios}")
    epochs = measure_epochs(options) if options.epochs else None
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"rows": rows, "epochs": epochs, "bits": options.bits, **describe_environment()}
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
    processor: dict[str, list[float]] = {name: [] for name in models}
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
            started, worked = time.perf_counter(), time.process_time()
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
                processor[name].append(time.process_time() - worked)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "dataset": dataset,
        "model": model,
        "median_s": median,
        "minimum_s": {name: min(values) for name, values in seconds.items()},
        "median_processor_s": {name: statistics.median(v) for name, v in processor.items()},
        "dq_over_qat": median["degree_quant"] / median["qat"],
        "dq_over_float": median["degree_quant"] / median["float"],
        "steps": options.steps,
    }


def measure_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of processor time of an epoch of PROTEINS, by model, and their ratios to float."""
    data = load_dataset("PROTEINS", options.data_root, cache=options.cache)
    recipe = recipe_of("gin", data)
    experiment = Experiment(data, make_spec(data, "gin", recipe), 0, recipe.quantized_dropout)
    base, problem = experiment.new_model(0), experiment.problem
    # What a teacher says costs nothing: it was asked once, for all graphs.
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(problem.labels.size(0), data.num_classes, generator=generator)
    methods = {
        "float": None,
        "qat": UniformConfig(bits=options.bits),
        "degree_quant": DegreeQuantConfig(bits=options.bits),
    }
    loops = {}
    for name, method in methods.items():
        fit = recipe.quantized_fit if method else recipe.quantized_fit.replace(distill=0.0)
        model = prepare(base, method) if method else copy.deepcopy(base)
        loops[name] = Loop(model, problem, fit, method, teacher if method else None)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with constant_inputs():
        for epoch in range(options.epochs + WARM_EPOCHS):
            for name, loop in loops.items():
                worked = time.process_time()
                loop.train_epoch(lambda: False)
                loop.validate()
                if epoch >= WARM_EPOCHS:
                    seconds[name].append(time.process_time() - worked)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    minimum = {name: min(values) for name, values in seconds.items()}
    # Neighbours in time are compared: what else the machine does weighs on both.
    ratio = {
        name: statistics.median(
            one / two for one, two in zip(values, seconds["float"], strict=True)
        )
        for name, values in seconds.items()
    }
    shown = ", ".join(f"{name} {median[name]:.2f} s ({ratio[name]:.2f})" for name in loops)
    print(f"an epoch of PROTEINS in processor time: {shown}")
    return {
        "dataset": "PROTEINS",
        "model": "gin",
        "epochs": options.epochs,
        "median_processor_s": median,
        "minimum_processor_s": minimum,
        "over_float": ratio,
    }


if __name__ == "__main__":
    main()
