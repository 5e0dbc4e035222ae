"""Least time of every step of a plan, on one thread: GIN-4x64 on a batch of small graphs.

    python benchmarks/plan_steps.py --graphs 32
    python benchmarks/plan_steps.py --graphs 32 --dataset PROTEINS

A random graph has 39 nodes and 146 edges, as those of PROTEINS on average, and 32 features. Of a
data set the graphs are drawn with a seed.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from torch import Tensor
from torch_geometric.data import Batch

from nodebits.data import load_dataset
from nodebits.ops.backends.cpu import kernels
from nodebits.plan.plan import DTYPES
from small_graphs import Graphs, packed

NODES, EDGES, FEATURES = 39, 146, 32


def random_batch(graphs: int) -> dict[str, Tensor]:
    """Arguments of the model: graphs of one size."""
    first = torch.arange(graphs) * NODES
    return {
        "x": torch.randn(graphs * NODES, FEATURES),
        "edge_index": torch.randint(0, NODES, (2, graphs * EDGES)) + first.repeat_interleave(EDGES),
        "batch": torch.arange(graphs).repeat_interleave(NODES),
    }


def drawn_batch(name: str, graphs: int, root: str | None) -> dict[str, Tensor]:
    """Arguments of the model: graphs of a data set."""
    dataset = list(load_dataset(name, root=root).graphs)
    drawn = torch.randperm(len(dataset))[:graphs].tolist()
    batch = Batch.from_data_list([dataset[i] for i in drawn])
    return {"x": batch.x.float(), "edge_index": batch.edge_index, "batch": batch.batch}


def main() -> None:
    """Prints a line per step, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=32)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--dataset", default=None)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if asked.dataset is None:
        given = random_batch(asked.graphs)
    else:
        given = drawn_batch(asked.dataset, asked.graphs, asked.data_root)
    with torch.no_grad():
        model = packed(Graphs(given["x"].size(1), 3).eval(), asked.bits, *given.values())
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
            start = time.perf_counter()
            run.steps(i, i + 1, 1)
            least[i] = min(least[i], time.perf_counter() - start)
    for name, seconds in zip(plan.steps, least, strict=True):
        print(f"{name:16} {1e6 * seconds:8.1f}")
    nodes, edges = given["x"].size(0), given["edge_index"].size(1)
    print(f"{'all':16} {1e6 * sum(least):8.1f}   {nodes} nodes, {edges} edges")


if __name__ == "__main__":
    main()
