"""Updates of a graph and exact predictions after them, beside a new prediction and PyG.

    python benchmarks/updates.py --out benchmarks/results/updates.json
    python benchmarks/updates.py --table benchmarks/results/updates.json

A two-layer GCN on a generated graph of ogbn-arxiv's size (heavy-tailed degrees, normal features).
Edges are added between nodes drawn at random, half of the updates takes such edges away again. One
update is followed by the prediction of its target; batches by a refresh of all predictions. Beside
it stand a whole prediction of the packed model on the graph as it is, and PyG's float layers on the
two-hop neighbourhood of the target. Before it ends the run compares all predictions with those of
the packed model on the changed graph. Published rates of RIPPLE++ (float) are of its own machines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import GCN
from torch_geometric.utils import k_hop_subgraph

import nodebits
from nodebits.bench.environment import describe_environment
from nodebits.bench.speed.graphs import load_graph
from nodebits.bench.timing import quantiles
from nodebits.ops import current_isa

ARXIV = "random:169343:1166243"
# arXiv 2601.12347: updates a second.
PUBLISHED = {"RIPPLE++, ogbn-arxiv": 56_000, "RIPPLE++, ogbn-products": 7_600}
TITLE = """# Updates

Made by `python benchmarks/updates.py --table`; its text says what was measured, and how.

"""


class Stream:
    """Edges that come, and of those that came some that go."""

    def __init__(self, nodes: int) -> None:
        self._nodes, self._generator = nodes, torch.Generator().manual_seed(1)
        self._there: list[Tensor] = []

    def apply(self, session: nodebits.GraphSession, size: int) -> Tensor:
        """One batch of updates; returns its edges."""
        if self._there and self._there[0].size(1) == size and len(self._there) > 4:
            edges = self._there.pop(0)
            session.remove_edges(edges)
        else:
            edges = torch.randint(self._nodes, (2, size), generator=self._generator)
            session.add_edges(edges)
            self._there.append(edges)
        return edges


def timed(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What the file holds."""
    torch.set_num_threads(options.threads)
    bench = load_graph(options.graph)
    x, graph = bench.features(), bench.graph
    torch.manual_seed(0)
    model = GCN(bench.num_features, options.hidden, 2, bench.num_classes).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=options.bits, mode="ptq"))
    nodebits.calibrate(prepared, x, graph)
    packed = nodebits.convert(prepared)
    session = nodebits.GraphSession(packed, graph, x)
    first = timed(session.predict)
    nodes = graph.num_src

    singles, stream = [], Stream(nodes)
    for _ in range(options.singles):
        start = time.perf_counter()
        session.predict(stream.apply(session, 1)[1])
        singles.append(1e3 * (time.perf_counter() - start))
    batches = {}
    for size in options.batches:
        stream, rates = Stream(nodes), []
        for _ in range(options.repeats):
            start = time.perf_counter()
            stream.apply(session, size)
            session.refresh()
            rates.append(size / (time.perf_counter() - start))
        batches[str(size)] = {"median": statistics.median(rates), "best": max(rates)}

    now = session.graph()
    plain = nodebits.Graph(now.indptr, now.indices, nodes)
    edges = plain.edge_index()
    x = session.features
    packed.predict(x, plain)
    whole = [timed(lambda: packed.predict(x, plain)) for _ in range(5)]
    hops = []
    for node in torch.randint(nodes, (options.hops,)).tolist():
        hops.append(1e3 * timed(lambda n=node: two_hops(model, x, edges, n)))
    mismatches = int((session.predict() != packed.predict(x, plain)).any(1).sum())
    p50, p90, p99 = quantiles(singles, 0.5, 0.9, 0.99)
    return {
        "command": ["python", "benchmarks/updates.py", *sys.argv[1:]],
        "environment": {**describe_environment(), "isa": current_isa()},
        "load_average": os.getloadavg()[0],
        "threads": options.threads,
        "graph": {"name": bench.name, "nodes": nodes, "edges": graph.num_edges},
        "model": f"GCN {bench.num_features}-{options.hidden}-{bench.num_classes}",
        "bits": options.bits,
        "kept_megabytes": session.memory() / 1e6,
        "first_ms": 1e3 * first,
        "single": {"count": len(singles), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99},
        "batches": batches,
        "whole_ms": 1e3 * statistics.median(whole),
        "pyg_two_hops_ms": statistics.median(hops),
        "rows_with_other_bits": mismatches,
    }


def two_hops(model: torch.nn.Module, x: Tensor, edges: Tensor, node: int) -> Tensor:
    """PyG's float model for one node; its neighbourhood is sought in the whole edge list."""
    nodes, inside, place, _ = k_hop_subgraph(node, 2, edges, relabel_nodes=True)
    found: Tensor = model(x[nodes], inside)[place]
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown of a file."""
    single, graph = found["single"], found["graph"]
    lines = [
        f"{found['model']}, {found['bits']} bits, {graph['name']}: {graph['nodes']:,} nodes, "
        f"{graph['edges']:,} edges.",
        f"{found['environment']['processor']}, {found['environment']['isa']}, {found['threads']} "
        f"threads.",
        f"Other work ran beside it: the load average was {found['load_average']:.1f} at its end.",
        "",
        "| what | ms |",
        "|---|---|",
        f"| one edge and the prediction of its target, median of {single['count']} | "
        f"{single['p50_ms']:.1f} |",
        f"| 90th percentile | {single['p90_ms']:.1f} |",
        f"| 99th percentile | {single['p99_ms']:.1f} |",
        f"| a whole prediction, packed | {found['whole_ms']:.0f} |",
        f"| PyG's float model on the two hops of one node | {found['pyg_two_hops_ms']:.0f} |",
        "",
        "| edges a batch | updates a second, median | best |",
        "|---|---|---|",
    ]
    lines += [
        f"| {int(size):,} | {rate['median']:,.0f} | {rate['best']:,.0f} |"
        for size, rate in found["batches"].items()
    ]
    lines += [f"| {name}, as published | {rate:,} | |" for name, rate in PUBLISHED.items()]
    lines += ["", f"Rows with other bits than a whole prediction: {found['rows_with_other_bits']}."]
    return TITLE + "\n".join(lines) + "\n"


def main() -> None:
    """Measures, or makes a table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--graph", default=ARXIV)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--singles", type=int, default=1000)
    parser.add_argument("--batches", type=int, nargs="+", default=[100, 1000, 10_000, 50_000])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--hops", type=int, default=20)
    options = parser.parse_args()
    if options.table is not None:
        found = json.loads(options.table.read_text())
        options.table.with_suffix(".md").write_text(table(found))
        return
    found = measure(options)
    text = json.dumps(found, indent=1)
    print(table(found))
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
