"""Predictions for a few nodes from sampled neighbours, beside PyG's ``NeighborLoader`` and model.

    python benchmarks/sampled.py --out benchmarks/results/sampled.json
    python benchmarks/sampled.py --table benchmarks/results/sampled.json

A two-layer GraphSAGE on a generated graph of ogbn-arxiv's size (heavy-tailed degrees, normal
features), 10 neighbours per hop, 64 nodes a call. One call is what a server does: sample, take the
rows of the features, run all layers. Its parts are timed alone too. All run in turns, every call on
other nodes. PyG's loader runs in the process (``num_workers=0``) and needs pyg-lib or torch-sparse;
without one its rows are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_geometric.typing
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

import nodebits
from nodebits.bench.environment import describe_environment
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.timing import quantiles, sample_interleaved
from nodebits.graph import Graph, Sample, sample_neighbors
from nodebits.ops import current_isa
from nodebits.ops.selection import take_rows
from nodebits.runtime import PackedModel

ARXIV = "random:169343:1166243"
SAMPLERS = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
PACKED, FLOAT, PEER = "nodebits, packed features", "nodebits, float features", "PyG"
TITLE = """# Sampled neighbours

Made by `python benchmarks/sampled.py --table`; its text says what was measured, and how.

"""


def packed_sage(bench: BenchGraph, hidden: int, bits: int) -> tuple[nn.Module, PackedModel]:
    """A float model and its packed form, calibrated on samples like those that follow."""
    torch.manual_seed(0)
    model = GraphSAGE(bench.num_features, hidden, 2, bench.num_classes).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
    x = bench.features()
    samples = [
        sample_neighbors(bench.graph, torch.arange(i * 64, i * 64 + 64), [10, 10], seed=i)
        for i in range(20)
    ]
    nodebits.calibrate(prepared, [(x[s.nodes], s.graph.edge_index()) for s in samples])
    return model, nodebits.convert(prepared)


class Batches:
    """Other nodes at every call, and samples of them made ahead."""

    def __init__(self, graph: Graph, seeds: int, fanouts: list[int], count: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.graph, self.fanouts = graph, fanouts
        self.nodes = [
            torch.randint(graph.num_src, (seeds,), generator=generator) for _ in range(count)
        ]
        self.samples = [self.sampled(i) for i in range(count)]

    def sampled(self, number: int) -> Sample:
        return sample_neighbors(
            self.graph, self.nodes[number % len(self.nodes)], self.fanouts, seed=number
        )

    def unseen(self, number: int) -> Sample:
        """A sample of which no degrees and the like are known."""
        kept = self.samples[number % len(self.samples)]
        graph = Graph(kept.graph.indptr, kept.graph.indices, kept.graph.num_src)
        graph.checked = True
        return Sample(kept.nodes, graph, kept.edges, kept.seeds, kept.reached)


Call = Callable[[int], object]


def own_calls(packed: PackedModel, x: Tensor, batches: Batches) -> dict[str, Call]:
    """Calls of this library by name; each takes the number of the call."""
    ahead, samples, fanouts = packed.pack_input(x), batches.samples, batches.fanouts
    count = len(samples)
    taken = [ahead.selected(s.nodes) for s in samples]
    floats = [take_rows(x, s.nodes) for s in samples]

    def whole(features: Any) -> Call:
        return lambda i: packed.predict_nodes(
            batches.graph, features, batches.nodes[i % count], fanouts, seed=i
        )

    def forward(features: Any, given: list[Any]) -> Call:
        """As predict_nodes runs it, on rows that were taken already."""

        def call(i: int) -> object:
            sample = batches.unseen(i)
            args = given[i % count], sample.graph
            return packed._sampled(sample.reached, (batches.graph, features), args, {})

        return call

    return {
        PACKED: whole(ahead),
        FLOAT: whole(x),
        "sampling": batches.sampled,
        "rows, packed": lambda i: ahead.selected(samples[i % count].nodes),
        "rows, float": lambda i: take_rows(x, samples[i % count].nodes),
        "forward, packed": forward(ahead, taken),
        "forward, float": forward(x, floats),
    }


def peer_calls(model: nn.Module, x: Tensor, batches: Batches) -> dict[str, Call]:
    """PyG's loader and its model, together and alone."""
    data = Data(x=x, edge_index=batches.graph.edge_index())
    nodes = torch.cat(batches.nodes)

    def loaded() -> Iterator[Data]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch-sparse is told to be old
            loader = NeighborLoader(
                data, batches.fanouts, input_nodes=nodes, batch_size=batches.nodes[0].numel()
            )
        while True:
            yield from loader

    first, second = loaded(), loaded()
    ready = list(itertools.islice(loaded(), len(batches.nodes)))

    def forward(batch: Data) -> Tensor:
        out: Tensor = model(batch.x, batch.edge_index)[: batch.batch_size]
        return out

    return {
        PEER: lambda _: forward(next(first)),
        "PyG, loader": lambda _: next(second),
        "PyG, forward": lambda i: forward(ready[i % len(ready)]),
    }


def numbered(call: Call) -> Callable[[], object]:
    """``call`` with 0, 1, 2 and so on."""
    numbers = itertools.count()
    return lambda: call(next(numbers))


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What the file holds."""
    torch.set_num_threads(options.threads)
    bench = load_graph(options.graph)
    model, packed = packed_sage(bench, options.hidden, options.bits)
    batches = Batches(bench.graph, options.seeds, options.fanouts, options.batches)
    x = bench.features()
    calls = own_calls(packed, x, batches)
    if SAMPLERS:
        calls |= peer_calls(model, x, batches)
    else:
        print("neither pyg-lib nor torch-sparse is installed: no peer", file=sys.stderr)
    timed = {name: numbered(call) for name, call in calls.items()}
    samples = sample_interleaved(timed, options.repeats, warmup=3)
    reached = [sample.nodes.numel() for sample in batches.samples]
    rows = {}
    for name, seconds in samples.items():
        p50, p95 = quantiles([1e3 * s for s in seconds], 0.5, 0.95)
        rows[name] = {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3)}
    return {
        "command": ["python", "benchmarks/sampled.py", *sys.argv[1:]],
        "environment": {**describe_environment(), "isa": current_isa()},
        "graph": {
            "name": bench.name,
            "nodes": bench.graph.num_src,
            "edges": bench.graph.num_edges,
            "features": bench.num_features,
        },
        "model": f"GraphSAGE {bench.num_features}-{options.hidden}-{bench.num_classes}",
        "bits": options.bits,
        "seeds": options.seeds,
        "fanouts": options.fanouts,
        "repeats": options.repeats,
        "nodes_of_a_sample": sum(reached) / len(reached),
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """Markdown of a file."""
    rows, machine = found["rows"], found["environment"]
    peer = rows.get(PEER)
    lines = [
        TITLE,
        f"{found['model']}, {found['bits']} bits; {found['seeds']} nodes a call, "
        f"{'-'.join(map(str, found['fanouts']))} neighbours, "
        f"{found['nodes_of_a_sample']:.0f} nodes in a sample on average.\n",
        f"{machine['processor']}, {machine['isa']}, {machine['threads']} threads; "
        f"{found['repeats']} calls each.\n\n",
        "| ms | p50 | p95 | times faster than PyG at p50 |\n|---|---|---|---|\n",
    ]
    for name, row in rows.items():
        faster = name in (PACKED, FLOAT) and peer is not None
        ratio = f"{peer['p50_ms'] / row['p50_ms']:.1f}" if faster else ""
        lines.append(f"| {name} | {row['p50_ms']:.3f} | {row['p95_ms']:.3f} | {ratio} |\n")
    return "".join(lines)


def main() -> None:
    """Measures, or prints a table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, help="print a file of --out as a table")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--graph", default=ARXIV, help="as nodebits bench takes it")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=64, help="nodes of a call")
    parser.add_argument("--fanouts", type=int, nargs="+", default=[10, 10])
    parser.add_argument("--batches", type=int, default=100, help="different ones")
    parser.add_argument("--repeats", type=int, default=200, help="timed calls of each")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.table is not None:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))), end="")
        return
    found = measure(options)
    text = json.dumps(found, indent=1) + "\n"
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
