"""Neighbour sums of packed rows against torch's float32 ``embedding_bag``, on a random graph.

    python benchmarks/spmm.py [--nodes 200000] [--columns 128] [--degree 50] [--threads 2]
        [--json FILE]

Prints medians of interleaved runs: other work on the machine then hits all of them alike.
``operator`` is what a caller sees, with a fresh output each time, as ``embedding_bag`` has;
``kernel`` writes into an output that exists and leaves out the page faults of new memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nodebits import ops
from nodebits.ops import backend


def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def medians(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median milliseconds of every call, measured in turns after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) * 1e3 for name, t in times.items()}


def main() -> None:
    """Measures, prints and, with ``--json``, writes a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--degree", type=int, default=50, help="mean in-degree")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    g = torch.Generator().manual_seed(0)
    nodes, columns, edges = args.nodes, args.columns, args.nodes * args.degree

    row = torch.randint(0, nodes, (edges,), generator=g)
    col = torch.randint(0, nodes, (edges,), generator=g)
    indptr, indices, _ = ops.coo_to_csr(row, col, nodes)
    del row, col
    table = torch.randn(nodes, columns, generator=g)
    offsets = indptr.int()

    def bag() -> torch.Tensor:
        return torch.nn.functional.embedding_bag(
            indices, table, offsets, mode="sum", include_last_offset=True
        )

    calls: dict[str, Callable[[], Any]] = {"embedding_bag f32": bag}
    kernels = backend.compiled()
    out = torch.zeros(nodes, columns, dtype=torch.int32)
    for bits in (8, 4, 2, 1):
        codes = torch.randint(0, 1 << bits, (nodes, columns), generator=g, dtype=torch.uint8)
        packed = ops.pack(codes, bits)
        calls[f"u{bits} operator"] = lambda p=packed, b=bits: ops.spmm(
            indptr, indices, p, b, columns
        )
        if kernels is not None:
            calls[f"u{bits} kernel"] = lambda p=packed, b=bits: kernels.spmm(
                indptr, indices, p, b, columns, None, out, args.threads
            )
    made = medians(calls, args.runs)
    base = made["embedding_bag f32"]
    environment = {
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "threads": args.threads,
        "isa": ops.current_isa(),
        "nodes": nodes,
        "columns": columns,
        "edges": edges,
        "runs": args.runs,
    }
    for key, value in environment.items():
        print(f"{key:12} {value}")
    for name, value in made.items():
        print(f"{name:20} {value:9.1f} ms   {base / value:6.2f} x")
    if args.json:
        rows = {k: {"ms": round(v, 2), "ratio": round(base / v, 2)} for k, v in made.items()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps({"environment": environment, "median": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
