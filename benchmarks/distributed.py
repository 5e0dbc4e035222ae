r"""A packed model on a graph in parts: time of several processes, bytes that travel, overlap.

    R=benchmarks/results/distributed
    python benchmarks/distributed.py --out $R.jsonl
    python benchmarks/distributed.py --graph arxiv-like --worlds 1 2 4 8 --by range metis \
      --out $R.jsonl
    python benchmarks/distributed.py --graph PubMed --data-root DATA --worlds 1 2 4 8 \
      --by range metis --out $R.jsonl
    python benchmarks/distributed.py --graph random:200000:2000000 --hub 4000000 --worlds 1 2 4 \
      --split-hubs 0 100000 --out $R.jsonl
    python benchmarks/distributed.py --table $R.jsonl > $R.md

A two-layer GCN of 128 hidden columns runs on a graph of Reddit's size, by default in one process
and in two, one thread each. A call of all ranks begins together, and takes as long as the slowest
of them. Times of a world are taken one after another, after a call that is not counted. What a rank
waits for rows is the time that the exchange is not hidden behind the sums of its inner nodes.
Outputs of all worlds are compared. ``--hub`` gives one node so many edges more, and
``--split-hubs`` divides those of nodes with more edges than each of its numbers, 0: of none. The
parts are made in memory, and processes are copies of this one, so that the command needs no files.
Rows of other machines stay in the file; each machine has tables of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import socket
import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch_geometric.nn import GCN

import nodebits
from machines import by_machine, renewed
from nodebits.bench.environment import describe_environment
from nodebits.bench.speed.graphs import BenchGraph, load_graph
from nodebits.distributed.exchange import Arriving
from nodebits.distributed.files import Contents, LoadedPart
from nodebits.distributed.launch import joined
from nodebits.distributed.partition import Part, divided, owners
from nodebits.distributed.run import run_part
from nodebits.graph import Graph, as_graph
from nodebits.ops import current_isa
from nodebits.runtime import PackedModel

HIDDEN = 128
TIMEOUT = 120.0
# What tells a row from others of a machine; one that is measured again replaces it.
KEY = ("graph", "bits", "processes", "by", "split_hubs")
TITLE = """# Several processes

Made by `python benchmarks/distributed.py --table`; its text says what was measured, and how.

"""


def make_model(bench: BenchGraph, x: Tensor, bits: int) -> PackedModel:
    """A packed GCN, calibrated on a part of the graph."""
    torch.manual_seed(0)
    model = GCN(bench.num_features, HIDDEN, 2, bench.num_classes).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
    some = torch.arange(min(4000, x.size(0)))
    edges = torch.randint(some.numel(), (2, 20 * some.numel()))
    nodebits.calibrate(prepared, x[some], edges)
    return nodebits.convert(prepared)


@dataclass
class Waited:
    """Seconds that this process waited for rows."""

    seconds: float = 0.0

    def watch(self) -> None:
        """Counts every wait from now on."""
        wait = Arriving.wait

        def timed(arriving: Arriving) -> Tensor:
            began = time.perf_counter()
            try:
                return wait(arriving)
            finally:
                self.seconds += time.perf_counter() - began

        Arriving.wait = timed  # type: ignore[method-assign]


def rank_of(
    packed: PackedModel, parts: list[Part], x: Tensor, contents: Contents, repeats: int
) -> Any:
    """What a rank does."""

    def run(rank: int) -> dict[str, Any]:
        torch.set_num_threads(1)
        part, waited, times, busy = parts[rank], Waited(), [], []
        waited.watch()
        loaded = LoadedPart(contents, rank, part, {"x": x[part.nodes]}, {})
        with joined(TIMEOUT) as ranks:
            for _ in range(repeats + 1):
                if ranks.world > 1:
                    dist.barrier()
                waited.seconds = 0.0
                began, cpu = time.perf_counter(), time.process_time()
                found = run_part(packed, loaded, ranks.world, TIMEOUT, model="the same")
                times.append(time.perf_counter() - began)
                busy.append(time.process_time() - cpu)
        looked = (part.nodes % 97 == 0).nonzero().view(-1)
        crc = {int(part.nodes[i]): zlib.crc32(found.outputs[i].numpy().data) for i in looked}
        return {
            "seconds": times[1:],
            "cpu_seconds": busy[1:],
            "waited": waited.seconds,
            "sent": found.sent,
            "inner": part.inner,
            "summed": summed_edges(part),
            "nodes": part.nodes.numel(),
            "crc": crc,
        }

    return run


def ran(world: int, work: Callable[[int], Any]) -> list[Any]:
    """What copies of this process return, in the order of ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def begin(rank: int) -> None:
        names = {"RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
        results.put((rank, work(rank)))

    processes = [context.Process(target=begin, args=(rank,)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a rank failed: its error is above")
    return [result for _, result in sorted(results.get() for _ in processes)]


def summed_edges(part: Part) -> int:
    """Edges that a rank adds up: into its nodes, and of its nodes into hubs of others."""
    hubs = part.nodes.numel() - part.hubs.count
    of_hubs = part.indices[int(part.indptr[hubs]) :]
    return (
        int(part.indptr[hubs])
        + int((of_hubs < part.nodes.numel()).sum())
        + part.hubs.indices.numel()
    )


def with_hub(graph: Graph, edges: int) -> Graph:
    """The graph with so many edges more into the node in the middle."""
    if not edges:
        return graph
    generator = torch.Generator().manual_seed(1)
    sources = torch.randint(graph.num_dst, (edges,), generator=generator)
    ends = torch.stack([sources, torch.full_like(sources, graph.num_dst // 2)])
    return as_graph(torch.cat([graph.edge_index(), ends], 1), graph.num_dst)


def widths_of(bench: BenchGraph) -> tuple[int, int]:
    """Columns of what the two sums of the model read."""
    return HIDDEN, bench.num_classes


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the file."""
    torch.set_num_threads(1)
    bench = load_graph(args.graph, data_root=args.data_root)
    x, graph = bench.features(), with_hub(bench.graph, args.hub)
    packed = make_model(bench, x, args.bits)
    rows: list[dict[str, Any]] = []
    outputs: dict[int, int] = {}
    for way, above in itertools.product(args.by, args.split_hubs):
        for world in args.worlds:
            if world == 1 and (way, above) != (args.by[0], args.split_hubs[0]):
                continue
            began = time.perf_counter()
            owner = owners(graph, world, way, above or None)
            parts = list(divided(graph, owner, world, above or None))
            boundary = sum(sum(part.receive) for part in parts)
            contents = Contents(
                "made",
                world,
                way,
                graph.num_dst,
                graph.num_edges,
                boundary,
                bench.name,
                split_hubs=above or None,
                hubs=sum(part.hubs.count for part in parts),
                partial=sum(sum(part.hubs.shares) for part in parts),
            )
            made = time.perf_counter() - began
            run = rank_of(packed, parts, x, contents, args.repeats)
            found = ran(world, run)
            crcs = {node: crc for one in found for node, crc in one["crc"].items()}
            differ = sum(outputs.setdefault(node, crc) != crc for node, crc in crcs.items())
            calls = [max(one["seconds"][i] for one in found) for i in range(args.repeats)]
            packed_bytes = boundary * sum(-(-args.bits * c // 8) for c in widths_of(bench))
            packed_bytes += contents.partial * 4 * sum(widths_of(bench))  # int32
            rows.append(
                {
                    "command": f"python benchmarks/distributed.py --graph {args.graph} --bits "
                    f"{args.bits} --worlds {' '.join(map(str, args.worlds))} --by "
                    f"{' '.join(args.by)} --hub {args.hub} --split-hubs "
                    f"{' '.join(map(str, args.split_hubs))} --repeats {args.repeats}",
                    "environment": {**describe_environment(), "isa": current_isa()},
                    "load_average": round(os.getloadavg()[0], 1),
                    "graph": bench.name + (f", hub of {args.hub:,}" if args.hub else ""),
                    "nodes": graph.num_dst,
                    "edges": graph.num_edges,
                    "bits": args.bits,
                    "by": way,
                    "split_hubs": above or None,
                    "hubs": contents.hubs,
                    "partial_sums": contents.partial,
                    "summed_edges": [one["summed"] for one in found],
                    "processes": world,
                    "seconds": statistics.median(calls),
                    "all_seconds": calls,
                    "cpu_seconds": [statistics.median(one["cpu_seconds"]) for one in found],
                    "waited": [one["waited"] for one in found],
                    "inner_share": sum(one["inner"] for one in found) / graph.num_dst,
                    "boundary_rows": boundary,
                    "sent_bytes": sum(one["sent"] for one in found),
                    "packed_bytes": packed_bytes,
                    "float_bytes": boundary * 4 * sum(widths_of(bench)),
                    "rows_compared": len(crcs),
                    "rows_with_other_bits": differ,
                    "divide_seconds": made,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(path: Path) -> str:
    """Rows of a file as Markdown, each machine in a section of its own."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [f"## {machine}\n\n{_part(of)}" for machine, of in by_machine(rows).items()]
    return TITLE + "\n".join(parts)


def _part(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"The load average of the machine was {max(r['load_average'] for r in rows)} at most.",
        "Where it is above the number of cores, seconds say nothing, and bytes do.",
        "",
        "| graph | bits | processes | divided by | hubs split | s | times one "
        "| processor s of a rank | waited s | inner nodes | most edges of a rank | rows sent "
        "| partial sums sent | MB sent | of packed rows and sums | fewer than float "
        "| rows with other bits |",
        "|---" * 17 + "|",
    ]
    alone = {(r["graph"], r["bits"]): r["seconds"] for r in rows if r["processes"] == 1}
    for row in rows:
        sent = row["sent_bytes"]
        one = alone.get((row["graph"], row["bits"]))
        faster = "" if one is None else f"{one / row['seconds']:.2f}"
        edges = row.get("summed_edges")
        most = f"{100 * max(edges) / row['edges']:.0f} %" if edges else ""
        lines.append(
            f"| {row['graph']} | {row['bits']} | {row['processes']} "
            f"| {row['by'] if row['processes'] > 1 else ''} | {row.get('hubs') or ''} "
            f"| {row['seconds']:.3f} | {faster} "
            f"| {max(row['cpu_seconds']):.3f} | {max(row['waited']):.3f} "
            f"| {100 * row['inner_share']:.0f} % | {most} | {row['boundary_rows']:,} "
            f"| {row.get('partial_sums') or ''} | {sent / 1e6:.1f} "
            f"| {sent / row['packed_bytes'] if sent else 1:.3f} "
            f"| {row['float_bytes'] / sent if sent else 1:.2f} "
            f"| {row['rows_with_other_bits']} of {row['rows_compared']:,} |"
        )
    lines += ["", "Boundary rows and partial sums cross once in each of the two layers."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, or prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON lines, to which rows are added")
    parser.add_argument("--table", type=Path, help="print the rows of a file as Markdown")
    parser.add_argument("--graph", default="reddit-like")
    parser.add_argument("--data-root")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--by", nargs="+", default=["range"], choices=["range", "metis"])
    parser.add_argument("--hub", type=int, default=0, help="edges of one node besides")
    parser.add_argument("--split-hubs", type=int, nargs="+", default=[0], help="0 splits none")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.table is not None:
        print(table(args.table), end="")
        return
    rows = measure(args)
    if args.out is not None:
        before = args.out.read_text().splitlines() if args.out.exists() else []
        kept = renewed([*map(json.loads, before), *rows], KEY)
        args.out.write_text("".join(json.dumps(row) + "\n" for row in kept))


if __name__ == "__main__":
    main()
