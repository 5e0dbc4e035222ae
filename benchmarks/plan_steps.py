"""Least time of every step of a plan, on one thread: GIN-4x64 on a batch of small graphs.

    python benchmarks/plan_steps.py --graphs 32
    python benchmarks/plan_steps.py --graphs 32 --dataset PROTEINS
    python benchmarks/plan_steps.py --dataset Cora [--model GAT-2x8x8]

A random graph has 39 nodes and 146 edges, as those of PROTEINS on average, and 32 features. Of a
data set the graphs are drawn with a seed. A set of one graph is run through GCN-2x16 or ``--model``
instead, and the time to read its features alone is printed too: no step that reads them takes less.
Times are those of the processor, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from nodebits.data import Dataset, load_dataset
from nodebits.ops.backends.cpu import kernels
from nodebits.plan.plan import DTYPES
from small_graphs import MODELS, Graphs, packed

NODES, EDGES, FEATURES = 39, 146, 32


def random_batch(graphs: int) -> dict[str, Tensor]:
    """Arguments of the model: graphs of one size."""
    first = torch.arange(graphs) * NODES
    return {
        "x": torch.randn(graphs * NODES, FEATURES),
        "edge_index": torch.randint(0, NODES, (2, graphs * EDGES)) + first.repeat_interleave(EDGES),
        "batch": torch.arange(graphs).repeat_interleave(NODES),
    }


def drawn_batch(dataset: Dataset, graphs: int) -> dict[str, Tensor]:
    """Arguments of the model: graphs of a data set."""
    every = list(dataset.graphs)
    drawn = torch.randperm(len(every))[:graphs].tolist()
    batch = Batch.from_data_list([every[i] for i in drawn])
    return {"x": batch.x.float(), "edge_index": batch.edge_index, "batch": batch.batch}


def given_of(asked: argparse.Namespace) -> dict[str, Tensor]:
    """Arguments of the model, of what was asked for."""
    if asked.dataset is None:
        return random_batch(asked.graphs)
    dataset = load_dataset(asked.dataset, root=asked.data_root, cache=asked.cache)
    if dataset.many_graphs:
        return drawn_batch(dataset, asked.graphs)
    return {"x": dataset.data.x, "edge_index": dataset.data.edge_index}


def reading(x: Tensor, repeats: int) -> float:
    """Least time to look at every value of a tensor once."""
    words, least = x.view(-1).view(torch.int32).numpy(), float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        np.bitwise_or.reduce(words)
        least = min(least, time.thread_time() - start)
    return least


def main() -> None:
    """Prints a line per step, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=32)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--dataset", default=None)
    parser.add_argument("--model", default="GCN-2x16", choices=MODELS, help="of a set of one graph")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--cache", default=None)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = given_of(asked)
    make = Graphs if "batch" in given else MODELS[asked.model]
    with torch.no_grad():
        model = packed(make(given["x"].size(1), 3).eval(), asked.bits, *given.values())
        model.predict(*given.values())
    plan = model.plan(*given.values())
    compiled = kernels.compiled_plan(plan.text, plan.constants)
    inputs = [(one["value"], given[one["name"]]) for one in plan.about["inputs"]]
    least = [float("inf")] * len(plan.steps)
    for _ in range(asked.repeats):
        run = kernels.plan_run(compiled)
        for value, t in inputs:
            run.set(value, t.data_ptr(), DTYPES[t.dtype], tuple(t.shape))
        for i in range(len(least)):
            start = time.thread_time()
            run.steps(i, i + 1, 1)
            least[i] = min(least[i], time.thread_time() - start)
    for name, seconds in zip(plan.steps, least, strict=True):
        print(f"{name:16} {1e6 * seconds:8.1f}")
    nodes, edges = given["x"].size(0), given["edge_index"].size(1)
    print(f"{'all':16} {1e6 * sum(least):8.1f}   {nodes} nodes, {edges} edges")
    if "batch" not in given:
        print(f"{'reading x':16} {1e6 * reading(given['x'], asked.repeats):8.1f}")


if __name__ == "__main__":
    main()
