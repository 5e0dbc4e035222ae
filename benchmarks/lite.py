"""What a model file costs without torch: import and load, memory, and time of a call.

    python benchmarks/lite.py MODEL [--calls 200] [--threads 2]
    python benchmarks/lite.py gin --calls 5000

Rows of Markdown. Every number is of a process of its own that has imported numpy before; calls are
on rings of nodes with random features (seed 0), medians and the least. In place of a file, ``gin``
makes one with nodebits: four layers of 64 channels at 4 bits, summed per graph. Its calls from
torch are measured too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
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
        print(
            nodes, *(n for g in (given, rest) for n in timed(lambda g=g: model.predict(**g), count))
        )


def timed(call, count: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Median and least of the microseconds of a call."""
    for _ in range(10):
        call()
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        found.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(found), min(found)


def make_gin(path: Path):  # type: ignore[no-untyped-def]
    """Saves a GIN of 4 x 64 at 4 bits for graphs; returns it packed."""
    import torch

    import nodebits

    torch.manual_seed(0)
    spec = nodebits.ModelSpec("gin", 16, 64, 2, num_layers=4, task="graph")
    prepared = nodebits.prepare(
        nodebits.build_model(spec),
        nodebits.UniformConfig(bits=4, sum_bits=4, head_bits=4, mode="ptq"),
    )
    batch = torch.arange(400) // 20
    edges = torch.randint(0, 20, (2, 1500)) + 20 * torch.randint(0, 20, (1500,))
    nodebits.calibrate(prepared, torch.randn(400, 16), edges, batch)
    packed = nodebits.convert(prepared, spec)
    packed.save(path)
    return packed


def torch_calls(count: int, threads: int) -> None:
    """Prints microseconds of a call from torch, by size."""
    import torch

    from nodebits.lite import load

    with tempfile.TemporaryDirectory() as folder:
        packed = make_gin(Path(folder) / "gin")
        model = load(Path(folder) / "gin")
    torch.set_num_threads(threads)
    for nodes in NODES:
        given = {name: torch.from_numpy(a) for name, a in ring(model, nodes).items()}
        for _ in range(50):
            packed.predict(**given)
        print(nodes, *timed(lambda g=given: packed.predict(**g), count))


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
    parser.add_argument("--part", choices=("start", "calls", "torch"), help="used by the script")
    chosen = parser.parse_args()
    if chosen.part == "start":
        return start(chosen.model)
    if chosen.part == "calls":
        return calls(chosen.model, chosen.calls, chosen.threads)
    if chosen.part == "torch":
        return torch_calls(chosen.calls, chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        more = ("--calls", str(chosen.calls), "--threads", str(chosen.threads))
        if chosen.model == "gin":
            chosen.model = str(Path(folder) / "gin")
            make_gin(Path(chosen.model))
            table(chosen.model, more)
            for nodes, middle, least in child("gin", "--part", "torch", *more):
                print(
                    f"| a call from torch on {nodes:,.0f} nodes | {middle:.0f} µs ({least:.0f}) |"
                )
        else:
            table(chosen.model, more)
    return None


def table(path: str, more: tuple[str, ...]) -> None:
    """Prints the rows of a file."""
    starts = [child(path, "--part", "start")[0] for _ in range(STARTS)]
    print("| | |\n|---|---|")
    print(f"| model file | {Path(path).stat().st_size / 1024:.0f} KiB |")
    print(f"| import and load | {1e3 * statistics.median(s for s, _ in starts):.0f} ms |")
    grown = statistics.median(g for _, g in starts)
    print(f"| memory of import, load and a call | {grown / 2**20:.1f} MiB |")
    for nodes, fresh, least, kept, least_kept in child(path, "--part", "calls", *more):
        print(f"| a call on {nodes:,.0f} nodes | {fresh:.0f} µs ({least:.0f}) |")
        print(f"| the same on a graph that was set | {kept:.0f} µs ({least_kept:.0f}) |")


if __name__ == "__main__":
    main()
