"""Forwards of small and of changing graphs, beside PyG eager and compiled.

    python benchmarks/small_graphs.py --out benchmarks/results/small_graphs.jsonl
    python benchmarks/small_graphs.py --table benchmarks/results/small_graphs.jsonl
    python benchmarks/small_graphs.py --plot benchmarks/results/small_graphs.jsonl

Rows that the file holds for this processor and these settings are not measured again: a run that
was interrupted goes on. Rows of other machines stay, each machine in a table of its own; those of
this one with other versions are measured anew. ``--plot`` draws the sweep of the first machine to
``docs/small_graphs.svg``.

Packed models run as the plan that they make of themselves; nothing is prepared but what a row says.
Peers are PyG's float model, eager and with ``torch.compile(dynamic=True)``, on ``edge_index`` and,
where the graph is one, on a ``torch.sparse`` CSR matrix; a row is beside the fastest of them.
Batches of PROTEINS change from call to call. Sets that are not at hand are left out. The sweep is
of random graphs with ten edges per node.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE, global_add_pool

import nodebits
from nodebits.bench.environment import describe_environment
from nodebits.bench.timing import quantiles, sample_interleaved
from nodebits.core.errors import NodebitsError
from nodebits.data import load_dataset
from nodebits.ops import current_isa
from peers import compiled

Call = Callable[[], Any]
OURS, PACKED = "nodebits", "nodebits, features packed ahead"
BUDGET = 4.0  # seconds of one candidate in a row, where it has three samples by then
RANDOM = "random, {} edges"
PLOT = Path(__file__).resolve().parents[1] / "docs" / "small_graphs.svg"
MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "GCN-2x16": lambda inputs, classes: GCN(inputs, 16, 2, classes),
    "GAT-2x8x8": lambda inputs, classes: GAT(inputs, 64, 2, classes, heads=8),
    "SAGE-2x64": lambda inputs, classes: GraphSAGE(inputs, 64, 2, classes),
    "GIN-2x64": lambda inputs, classes: GIN(inputs, 64, 2, classes),
    "GCN-3x64": lambda inputs, classes: GCN(inputs, 64, 3, classes),
}
TITLE = """# Small and changing graphs

Made by `python benchmarks/small_graphs.py --table`; its text says what was measured, and how.
Times are medians in milliseconds; *times faster* is beside the fastest peer.

"""


class Graphs(nn.Module):
    """GIN with four layers of 64 channels and batch norms, summed per graph."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layers = GIN(inputs, 64, 4, norm="batch_norm")
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.head(global_add_pool(self.layers(x, edge_index), batch))


def packed(model: nn.Module, bits: int, *args: Any) -> nodebits.PackedModel:
    """A packed model, calibrated on what it is called with."""
    prepared = nodebits.prepare(
        model, nodebits.UniformConfig(bits=bits, sum_bits=bits, head_bits=bits, mode="ptq")
    )
    nodebits.calibrate(prepared, *args)
    return nodebits.convert(prepared)


def measured(
    name: str, data: str, calls: dict[str, Call], repeats: int, about: Any, warmup: int = 12
) -> Any:
    """A row: medians of all candidates, in turns."""
    found = sample_interleaved(calls, repeats, warmup, budget=BUDGET)
    times = {way: 1e3 * quantiles(samples, 0.5)[0] for way, samples in found.items()}
    row = {"model": name, "data": data, "milliseconds": times, **about}
    print(json.dumps(row), flush=True)
    return row


def batches(root: str | None, bits: int, size: int, repeats: int, about: Any) -> Any:
    """Batches of PROTEINS, another one in every call."""
    dataset = load_dataset("PROTEINS", root=root)
    graphs = list(dataset.graphs)
    torch.manual_seed(0)
    order = torch.randperm(len(graphs)).tolist()
    groups = [order[i : i + size] for i in range(0, len(order) - size, size)]
    made = [Batch.from_data_list([graphs[i] for i in group]) for group in groups]
    inputs = [(b.x.float(), b.edge_index, b.batch) for b in made]
    model = Graphs(inputs[0][0].size(1), 2).eval()
    ours = packed(model, bits, [tuple(one) for one in inputs[:8]])
    calls: dict[str, Call] = {}
    turns = {way: itertools.cycle(inputs) for way in ("eager", "compiled", OURS)}
    calls["eager"] = lambda: model(*next(turns["eager"]))
    fast = compiled(model, *inputs[0])
    if fast is not None:
        for one in inputs[:5]:
            fast(*one)
        calls["compiled"] = lambda: fast(*next(turns["compiled"]))
    calls[OURS] = lambda: ours.predict(*next(turns[OURS]))
    return measured("GIN-4x64", f"PROTEINS, batch {size}", calls, repeats, about)


def whole(
    name: str, data: str, x: Tensor, edges: Tensor, classes: int, bits: int, repeats: int,
    about: Any, ahead: bool = True, compiling: bool = True,
) -> Any:  # fmt: skip
    """One graph, all nodes at once."""
    torch.manual_seed(0)
    model = MODELS[name](x.size(1), classes).eval()
    ours = packed(model, bits, x, edges)
    count = x.size(0)
    matrix = torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.size(1)), (count, count))
    matrix = matrix.coalesce().to_sparse_csr()
    calls: dict[str, Call] = {
        "eager": lambda: model(x, edges),
        "eager, CSR": lambda: model(x, matrix),
        OURS: lambda: ours.predict(x, edges),
    }
    fast = compiled(model, x, edges) if compiling else None
    if fast is not None:
        calls["compiled"] = lambda: fast(x, edges)
    if ahead:
        features, graph = ours.pack_input(x), ours.prepare_graph(edges, count)
        calls[PACKED] = lambda: ours.predict(features, graph)
    warmup = 12 if edges.size(1) <= 10_000 else 2
    return measured(name, data, calls, repeats, {**about, "edges": edges.size(1)}, warmup)


def times_faster(row: Any) -> float:
    """The fastest peer's time over ours."""
    times = row["milliseconds"]
    peers = [t for way, t in times.items() if not way.startswith("nodebits")]
    return float(min(peers) / times[OURS])


def plot(path: Path) -> None:
    """Draws how many times faster every model of the sweep is, over the number of edges."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "nodebits"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if _machine(row) == _machine(rows[0])]
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for name in MODELS:
        points = sorted(
            (row["edges"], times_faster(row))
            for row in rows
            if row["model"] == name and row["data"].startswith("random")
        )
        axis.plot([e for e, _ in points], [t for _, t in points], marker="o", label=name)
    axis.axhline(1.0, color="grey", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="edges of a random graph, ten per node")
    axis.set_ylabel(f"times faster than PyG, {rows[0]['bits']} bits")
    ticks = [1, 2, 3, 5, 10, 20]
    axis.set_yticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.legend(frameon=False)
    figure.savefig(PLOT, metadata={"Date": None})


def table(path: Path) -> str:
    """The rows as Markdown."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return TITLE + "\n".join(_part(list(of)) for _, of in itertools.groupby(rows, _machine))


def _machine(row: Any) -> str:
    """What rows have in common that are beside each other in a table."""
    return f"{row['bits']} bits, {row['threads']} threads, {row['isa']}, {row['processor']}.\n"


def _part(rows: list[Any]) -> str:
    lines = [
        _machine(rows[0]),
        "| model | graphs | fastest peer | its ms | ours, ms | times faster | packed ahead |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = row["milliseconds"]
        peers = {way: t for way, t in times.items() if not way.startswith("nodebits")}
        way = min(peers, key=lambda one: peers[one])
        ahead = f"{peers[way] / times[PACKED]:.1f}" if PACKED in times else ""
        lines.append(
            f"| {row['model']} | {row['data']} | {way} | {peers[way]:.2f} | {times[OURS]:.2f} | "
            f"{times_faster(row):.1f} | {ahead} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--sweep", default="10,100,1000,10000,100000,1000000")
    asked = parser.parse_args()
    if asked.table is not None:
        text = table(asked.table)
        asked.table.with_suffix(".md").write_text(text, encoding="utf-8")
        return
    if asked.plot is not None:
        plot(asked.plot)
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    environment = describe_environment()
    about = {
        "bits": asked.bits,
        "threads": asked.threads,
        "isa": current_isa(),
        "processor": environment["processor"],
        "versions": environment["versions"],
    }
    known: list[Any] = []
    others: list[Any] = []  # of other machines and settings, which stay
    if asked.out is not None and asked.out.exists():
        for one in asked.out.read_text(encoding="utf-8").splitlines():
            row = json.loads(one)
            mine = all(row.get(key) == about[key] for key in about)
            if mine or _machine(row) != _machine(about):
                (known if mine else others).append(row)
    rows: list[Any] = []

    def kept(name: str, data: str, make: Callable[[], Any]) -> None:
        """Adds a row, measured only where the file does not hold it."""
        held = [row for row in known if (row["model"], row["data"]) == (name, data)]
        rows.append(held[0] if held else make())
        if asked.out is not None:
            later = [row for row in known if row not in rows]
            text = "".join(json.dumps(one) + "\n" for one in [*others, *rows, *later])
            asked.out.write_text(text, encoding="utf-8")

    def batch(size: int) -> Any:
        return batches(asked.data_root, asked.bits, size, asked.repeats, about)

    def citations(name: str, data: str) -> Any:
        graph = load_dataset(data, root=asked.data_root).data
        classes = int(graph.y.max()) + 1
        x, edges = graph.x, graph.edge_index
        return whole(name, data, x, edges, classes, asked.bits, asked.repeats, about)

    def random(name: str, count: int) -> Any:
        generator = torch.Generator().manual_seed(0)
        nodes = max(count // 10, 4)
        x = torch.randn(nodes, 64, generator=generator)
        edges = torch.randint(0, nodes, (2, count), generator=generator)
        repeats = asked.repeats // 4 if count <= 10_000 else max(asked.repeats // 10, 5)
        where = RANDOM.format(count)
        return whole(name, where, x, edges, 8, asked.bits, repeats, about, False, False)

    with torch.no_grad():
        try:
            for size in (1, 32, 256):
                kept("GIN-4x64", f"PROTEINS, batch {size}", partial(batch, size))
            for name, data in (("GCN-2x16", "Cora"), ("GCN-2x16", "PubMed"), ("GAT-2x8x8", "Cora")):
                kept(name, data, partial(citations, name, data))
        except (NodebitsError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
        for name, count in itertools.product(MODELS, map(int, asked.sweep.split(","))):
            kept(name, RANDOM.format(count), partial(random, name, count))


if __name__ == "__main__":
    main()
