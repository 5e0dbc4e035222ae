"""What a model file costs without torch: import and load, memory, and time of a call.

    python benchmarks/lite.py MODEL [--calls 200] [--threads 2]

Rows of Markdown. Every number is of a process of its own that has imported numpy before; calls are
on rings of nodes with random features (seed 0), and medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

STARTS = 7
NODES = (20, 200, 2_000)


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def start(path: str) -> None:
    """Prints seconds of import and load, and by how many bytes they and a call make it grow."""
    before, begun = resident(), time.perf_counter()
    from nodebits.lite import load

    model = load(path)
    seconds = time.perf_counter() - begun
    model.predict(**ring(model, 20))
    print(seconds, resident() - before)


def ring(model, nodes: int) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """Arrays for the inputs of a model of one graph."""
    i = np.arange(nodes)
    edges = np.stack([np.concatenate([i, (i + 1) % nodes]), np.concatenate([(i + 1) % nodes, i])])
    found = {}
    for item in model.inputs:
        if item.is_graph:
            found[item.name] = edges
        elif item.dtype == "float32":
            shape = (nodes, *item.shape[1:])
            found[item.name] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        else:
            found[item.name] = np.zeros(nodes, np.int64)
    return found


def calls(path: str, count: int, threads: int) -> None:
    """Prints microseconds of a call with edges, and of one on a graph that was set, by size."""
    from nodebits.lite import load

    model = load(path, threads=threads)
    for nodes in NODES:
        given = ring(model, nodes)
        rest = {name: value for name, value in given.items() if name != "edge_index"}
        model.set_graph(given["edge_index"], nodes)
        print(nodes, *(median(lambda g=g: model.predict(**g), count) for g in (given, rest)))


def median(call, count: int) -> float:  # type: ignore[no-untyped-def]
    """Of the microseconds of a call."""
    for _ in range(10):
        call()
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        found.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(found)


def child(*arguments: str) -> list[list[float]]:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [[float(word) for word in line.split()] for line in out.splitlines()]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=("start", "calls"), help="used by the script itself")
    chosen = parser.parse_args()
    if chosen.part == "start":
        return start(chosen.model)
    if chosen.part == "calls":
        return calls(chosen.model, chosen.calls, chosen.threads)
    starts = [child(chosen.model, "--part", "start")[0] for _ in range(STARTS)]
    print("| | |\n|---|---|")
    print(f"| model file | {Path(chosen.model).stat().st_size / 1024:.0f} KiB |")
    print(f"| import and load | {1e3 * statistics.median(s for s, _ in starts):.0f} ms |")
    grown = statistics.median(g for _, g in starts)
    print(f"| memory of import, load and a call | {grown / 2**20:.1f} MiB |")
    more = ("--calls", str(chosen.calls), "--threads", str(chosen.threads))
    for nodes, fresh, kept in child(chosen.model, "--part", "calls", *more):
        print(f"| a call on {nodes:,.0f} nodes | {fresh:.0f} µs |")
        print(f"| the same on a graph that was set | {kept:.0f} µs |")
    return None


if __name__ == "__main__":
    main()
