"""Least time of every step of a plan, on one thread: GIN-4x64 on a batch of small random graphs.

    python benchmarks/plan_steps.py --graphs 32

A graph has 39 nodes and 146 edges, as those of PROTEINS on average, and 32 features.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch

from nodebits.ops.backends.cpu import kernels
from nodebits.plan.plan import DTYPES
from small_graphs import Graphs, packed

NODES, EDGES, FEATURES = 39, 146, 32


def main() -> None:
    """Prints a line per step, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=32)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    first = torch.arange(asked.graphs) * NODES
    given = {
        "x": torch.randn(asked.graphs * NODES, FEATURES),
        "edge_index": torch.randint(0, NODES, (2, asked.graphs * EDGES))
        + first.repeat_interleave(EDGES),
        "batch": torch.arange(asked.graphs).repeat_interleave(NODES),
    }
    with torch.no_grad():
        model = packed(Graphs(FEATURES, 3).eval(), asked.bits, *given.values())
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
    print(f"{'all':16} {1e6 * sum(least):8.1f}")


if __name__ == "__main__":
    main()
