"""Seconds of deep propagation: K steps of a packed APPNP beside the best float32 assembly.

Whole models on all nodes (two linears, then K steps), in turns, the graph prepared for everyone.
The number of columns that are propagated is the class count of the graph, or ``--columns``.

    python benchmarks/deep_speed.py --graph PubMed --steps 10 64 --data-root DATA
    python benchmarks/deep_speed.py --graph PubMed --steps 10 64 --columns 64 --data-root DATA
    python benchmarks/deep_speed.py --graph reddit-like --steps 10 --repeats 3
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP

from accuracy import append_row
from nodebits.bench.environment import describe_environment
from nodebits.bench.speed.assembly import assemble
from nodebits.bench.speed.forward import (
    SPARSE_DENSITY,
    sparse_input,
)
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.bench.speed.models import packed_model
from nodebits.bench.speed.rows import Call, Candidate, Protocol, measure

RESULTS = Path(__file__).resolve().parent / "results"


class Deep(nn.Module):
    """Two linears, then ``steps`` of personalised PageRank over ``columns``."""

    def __init__(self, in_channels: int, hidden: int, columns: int, steps: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(in_channels, hidden)
        self.lin2 = nn.Linear(hidden, columns)
        self.act = nn.ReLU()
        self.prop = APPNP(K=steps, alpha=0.1)
        self.prop.channels = columns

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """``x`` ``[N, in_channels]`` -> ``[N, columns]``."""
        result: Tensor = self.prop(self.lin2(self.act(self.lin1(x))), edge_index)
        return result


def candidates(model: Deep, bench: BenchGraph, bits: list[int]) -> list[Candidate]:
    """Float assemblies and packed models."""
    x, edges = bench.features(), bench.graph.num_edges

    def assembly(dtype: torch.dtype, sparse: bool) -> Callable[[], Call]:
        def build() -> Call:
            forward = assemble("appnp", model, bench.graph, dtype, sparse)
            rows = x.to(dtype)
            return lambda: forward(rows)

        return build

    def sparse_first(sparse: bool) -> Callable[[], Call]:
        def build() -> Call:
            forward = assemble("appnp", model, bench.graph, torch.float32, sparse)
            rows = sparse_input(x)
            return lambda: forward(rows)

        return build

    def ours(width: int) -> Callable[[], Call]:
        def build() -> Call:
            packed = packed_model(model, bench, width)
            graph = packed.prepare_graph(bench.graph, bench.graph.num_dst)
            inputs = itertools.cycle((packed.pack_input(x), packed.pack_input(x)))
            return lambda: packed.predict(next(inputs), graph)

        return build

    found = [
        Candidate("assembly, embedding_bag float32", "float32", assembly(torch.float32, False), 32),
        Candidate(
            "assembly, torch.sparse CSR float32", "float32", assembly(torch.float32, True), 32
        ),
    ]
    if bench.x is not None and float((x != 0).float().mean()) < SPARSE_DENSITY:
        for name, sparse in (("embedding_bag", False), ("torch.sparse CSR", True)):
            impl = f"assembly, {name} float32, sparse input"
            found.append(Candidate(impl, "float32", sparse_first(sparse), 32))
    if edges < 2**27:
        found.append(
            Candidate(
                "assembly, embedding_bag bfloat16", "float", assembly(torch.bfloat16, False), 16
            )
        )
    for b in bits:
        found.append(Candidate(f"nodebits u{b}", "nodebits", ours(b), b))
    return found


def main() -> None:
    """Measures and appends the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", default="PubMed")
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 64])
    parser.add_argument("--columns", type=int, help="propagated; default: the class count")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4, 2, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    parser.add_argument("--data-root")
    parser.add_argument("--cache")
    parser.add_argument("--out", type=Path, default=RESULTS / "deep_speed.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    bench = load_graph(options.graph, cache=options.cache, data_root=options.data_root)
    columns = options.columns or bench.num_classes
    for steps in options.steps:
        model = Deep(bench.num_features, options.hidden, columns, steps).eval()
        name = f"{steps} steps of {columns} columns"
        with torch.no_grad():
            rows = measure(
                name,
                bench.name,
                candidates(model, bench, options.bits),
                Protocol(repeats=options.repeats, only=options.only),
            )
        for row in rows:
            if row.median_s is None:
                print(f"{name}: {row.impl}: {row.note}")
                continue
            shown = f"{row.ratio_best_float32 or 0:.2f}x the best float32"
            print(f"{row.graph}, {name}: {row.impl}: {row.median_s * 1e3:.2f} ms, {shown}")
            extra = {"steps": steps, "columns": columns, "hidden": options.hidden}
            append_row(options.out, {**row.to_json(), **extra, **describe_environment()})


if __name__ == "__main__":
    main()
