"""Least time of every step of a plan, on one thread: GIN-4x64 on a batch of small graphs.

    python benchmarks/plan_steps.py --layer GINE "GINE + t" --repeats 6
    python benchmarks/plan_steps.py --graphs 32
    python benchmarks/plan_steps.py --graphs 32 --dataset PROTEINS
    python benchmarks/plan_steps.py --dataset Cora [--model GAT-2x8x8]

A random graph has 39 nodes and 146 edges, as those of PROTEINS on average, and 32 features. Of a
data set the graphs are drawn with a seed. A set of one graph is run through GCN-2x16 or ``--model``
instead, and the time to read its features alone is printed too: no step that reads them takes less.
``--layer`` takes layers of ``forms.py``, and beside steps that a plan runs a few rows at a time (a
strip) the time of these together.
Times are those of the processor, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

import forms
import nodebits
from nodebits.data import Dataset, load_dataset
from nodebits.ops.backends.cpu import kernels
from nodebits.plan.plan import DTYPES, Plan
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


Case = tuple[nn.Module, tuple[Tensor, ...]]


def of_layer(name: str) -> Case:
    """A layer of ``forms.py`` and its arguments."""
    model, args, _ = forms.case(name)
    return model, args


def of_data(asked: argparse.Namespace) -> Case:
    """A model of graphs or of one graph, and its arguments."""
    given = given_of(asked)
    make = Graphs if "batch" in given else MODELS[asked.model]
    return make(given["x"].size(1), 3).eval(), tuple(given.values())


def converted(model: nn.Module, bits: int, *args: Tensor) -> nodebits.PackedModel:
    """Calibrated and packed, sums and heads of as many bits."""
    config = nodebits.UniformConfig(bits=bits, sum_bits=bits, head_bits=bits, mode="ptq")
    prepared = nodebits.prepare(model, config)
    nodebits.calibrate(prepared, *args)
    return nodebits.convert(prepared, leave_unseen="float")


class Timed:
    """A plan that runs in ranges of steps.

    Args:
        plan: It.
        args: Its arguments.
    """

    def __init__(self, plan: Plan, args: tuple[Tensor, ...]) -> None:
        self._compiled = kernels.compiled_plan(plan.text, plan.constants)
        self._inputs = list(zip([one["value"] for one in plan.about["inputs"]], args, strict=True))
        self.count = len(plan.steps)

    def strips(self) -> list[tuple[int, int]]:
        """First and last step of strips, the last exclusive."""
        return [(first, last) for first, last in enumerate(self._compiled.strips) if last]

    def least(self, ranges: Sequence[tuple[int, int]], repeats: int) -> list[float]:
        """Least seconds of every range."""
        found = [float("inf")] * len(ranges)
        for _ in range(repeats):
            run = kernels.plan_run(self._compiled)
            for value, t in self._inputs:
                run.set(value, t.data_ptr(), DTYPES[t.dtype], tuple(t.shape))
            for at, (first, last) in enumerate(ranges):
                start = time.thread_time()
                run.steps(first, last, 1)
                found[at] = min(found[at], time.thread_time() - start)
        return found

    def alone(self) -> list[tuple[int, int]]:
        """Every step by itself."""
        return [(step, step + 1) for step in range(self.count)]

    def joined(self) -> list[tuple[int, int]]:
        """Strips as one range each, other steps by themselves."""
        ends, made, at = dict(self.strips()), [], 0
        while at < self.count:
            made.append((at, ends.get(at, at + 1)))
            at = made[-1][1]
        return made


def show(plan: Plan, args: tuple[Tensor, ...], repeats: int) -> None:
    """Prints a line per step, in microseconds, and one for each strip."""
    timed = Timed(plan, args)
    alone = timed.least(timed.alone(), repeats)
    ranges = timed.joined()
    together = dict(zip(ranges, timed.least(ranges, repeats), strict=True))
    for name, seconds in zip(plan.steps, alone, strict=True):
        print(f"{name:16} {1e6 * seconds:8.1f}")
    for first, last in timed.strips():
        apart, strip = 1e6 * sum(alone[first:last]), 1e6 * together[first, last]
        print(f"steps {first} to {last - 1}: {apart:.1f}, a few rows at a time {strip:.1f}")
    print(f"{'all':16} {1e6 * sum(alone):8.1f}, with strips {1e6 * sum(together.values()):.1f}")


def main() -> None:
    """Prints what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", nargs="*", default=[], choices=list(forms.LAYERS))
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
    for name in asked.layer or [None]:
        torch.manual_seed(0)
        with torch.no_grad():
            module, args = of_data(asked) if name is None else of_layer(name)
            pack = packed if name is None else converted
            model = pack(module, asked.bits, *args)
            model.predict(*args)
        print(f"{name or type(module).__name__}, {args[0].size(0)} nodes, {args[1].size(1)} edges")
        show(model.plan(*args), args, asked.repeats)
        if name is None and len(args) == 2:
            print(f"{'reading x':16} {1e6 * reading(args[0], asked.repeats):8.1f}")


if __name__ == "__main__":
    main()
