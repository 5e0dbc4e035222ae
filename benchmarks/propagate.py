"""PyG's layers in float32 against their packed forms: time and memory, layer by layer.

    python benchmarks/propagate.py --out benchmarks/results/propagate.jsonl [--layers GATv2Conv]
    python benchmarks/propagate.py --out benchmarks/results/propagate.jsonl --again --layers PNAConv
    python benchmarks/propagate.py --table benchmarks/results/propagate.jsonl

A random graph of 30,000 nodes and 800,000 edges, whose sources are unevenly likely; 128 columns
(fewer where PyG's matrix with a row per edge would not fit the memory), one thread, 8 bits,
calibrated. The two run in turns; the median of each counts, and the memory that a call takes beyond
what was held before it. Errors are those of the packed result against the float one. Every layer
has a process of its own, and a line of the file for each kind of machine (processor and instruction
set). Layers that the file has from this kind are left out, or measured ``--again``: their lines of
this kind are replaced. Every kind has a table of its own, so none mixes machines.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_geometric
from torch import Tensor

import nodebits
from convs import BY_TYPE, CONVS, by_type, extras
from layer_table import Alone
from nodebits.bench.environment import processor_name
from nodebits.nn.layer import QuantLayer
from nodebits.ops import current_isa
from nodebits.runtime.sites import runs_of

NODES, EDGES, COLUMNS = 30_000, 800_000, 128
# Layers that make a matrix per edge: C * C floats for each of the edges.
NARROW = {"NNConv": 16, "FastRGCNConv": 16, "RGATConv": 16}
TITLE = """# Layers beside PyG's

Made by `python benchmarks/propagate.py --table`; its text says what was measured, and how.

"""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def edges() -> Tensor:
    """Int64 ``[2, E]``."""
    target = torch.randint(0, NODES, (EDGES,))
    return torch.stack([(torch.rand(EDGES) ** 2 * NODES).long(), target])


def case(name: str) -> tuple[Alone, tuple[Any, ...], int]:
    """A layer, what its forward takes, and how many columns both have."""
    columns = NARROW.get(name, COLUMNS)
    if name in BY_TYPE:
        x, index = by_type(NODES, EDGES // 3, columns)
        return Alone(BY_TYPE[name](columns)).eval(), (x, index), columns
    make, names = CONVS[name]
    index = edges()
    args = torch.randn(NODES, columns), index, extras(names, index, NODES, columns)
    return Alone(make(columns)).eval(), args, columns


def seconds(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one call, on a clock."""
    start = clock()
    function()
    return clock() - start


def taken_mib(function: Callable[[], Any]) -> float:
    """Resident memory that a call takes at most beyond what was held before it."""

    def of(field: str) -> int:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field)))

    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5", encoding="utf-8")
    before = of("VmRSS")
    function()
    return max(of("VmHWM") - before, 0) / 1024


def measure(name: str, repeats: int) -> dict[str, Any]:
    """A line of the file."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, args, columns = case(name)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, *args)
        packed = nodebits.convert(prepared, leave_unseen="float")
        del prepared
        expected, found = model(*args), packed.predict(*args)
        error = float((found - expected).norm() / expected.norm())
        del expected, found
        calls = (lambda: model(*args), lambda: packed.predict(*args))
        taken = [taken_mib(call) for call in calls]
        times: list[list[float]] = [[], []]
        for _ in range(repeats):
            for call, kept in zip(calls, times, strict=True):
                kept.append(seconds(call))
    layers = [m for m in packed.module.modules() if isinstance(m, QuantLayer)]
    runs = [kind for kind in dict.fromkeys(map(runs_of, layers)) if kind != "integer product"]
    floats, packs = (statistics.median(kept) for kept in times)
    return {
        "layer": name,
        "columns": columns,
        "runs": ", ".join(runs) or "float",
        "float_s": round(floats, 4),
        "packed_s": round(packs, 4),
        "ratio": round(floats / packs, 2),
        "float_mib": round(taken[0], 1),
        "packed_mib": round(taken[1], 1),
        "error": round(error, 6),
        "torch": torch.__version__,
        "pyg": torch_geometric.__version__,
        "nodebits": nodebits.__version__,
        "isa": current_isa(),
        "processor": processor_name(),
        "threads": 1,
        "repeats": repeats,
        "seed": 0,
    }


def mean(values: list[float]) -> float:
    """Geometric."""
    return math.exp(statistics.fmean(map(math.log, values)))


def machine(line: dict[str, Any]) -> str:
    """The kind of machine that a line is from; early lines name its instruction set alone.

    A graph other than the usual one is part of it, since ratios are of a graph.
    """
    return ", ".join(str(line[name]) for name in ("processor", "isa", "graph") if line.get(name))


def tables(lines: list[dict[str, Any]]) -> str:
    """In Markdown, one for each kind of machine."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(machine(line), []).append(line)
    parts = [f"## {kind}\n\n{table(of_kind)}" for kind, of_kind in by_kind.items()]
    return TITLE + "\n".join(parts)


def table(lines: list[dict[str, Any]]) -> str:
    """Of one kind of machine, with the geometric means at the end."""
    head = "layer columns runs PyG packed ratio PyG packed ratio".split()
    head[3:5], head[6:8] = ("PyG, s", "packed, s"), ("PyG, MiB", "packed, MiB")
    head[5], head[8] = "times as fast", "share of memory"
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in sorted(lines, key=lambda line: str(line["layer"])):
        share = line["packed_mib"] / max(line["float_mib"], 0.1)
        rows.append(
            f"| `{line['layer']}` | {line['columns']} | {line['runs']} | {line['float_s']:.2f} | "
            f"{line['packed_s']:.2f} | {line['ratio']:.2f} | {line['float_mib']:.0f} | "
            f"{line['packed_mib']:.0f} | {share:.2f} |"
        )
    ratio = mean([line["ratio"] for line in lines])
    share = mean([max(line["packed_mib"], 0.1) / max(line["float_mib"], 0.1) for line in lines])
    slower = [str(line["layer"]) for line in lines if line["ratio"] < 1]
    rows.append(
        f"\n{len(lines)} layers; geometric means: {ratio:.2f} times as fast, {share:.2f} of the "
        f"memory. Slower than PyG: {', '.join(slower) or 'none'}."
    )
    return "\n".join(rows) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, line: dict[str, Any]) -> None:
    """Puts a line in the place of that of its layer, width and kind of machine, or at the end."""

    def key(one: dict[str, Any]) -> tuple[str, Any, str]:
        return str(one["layer"]), one.get("bits"), machine(one)

    lines = read(path)
    place = next((i for i, one in enumerate(lines) if key(one) == key(line)), len(lines))
    lines[place : place + 1] = [line]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def main() -> None:
    """Measures the layers that were asked for, or prints the table of a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--layers", nargs="*", default=sorted({*CONVS, *BY_TYPE}))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.repeats)))
    elif given.table:
        print(tables(read(given.table)), end="")
    elif given.out:
        here = machine({"processor": processor_name(), "isa": current_isa()})
        known = {line["layer"] for line in read(given.out) if machine(line) == here}
        for name in given.layers:
            if name in known and not given.again:
                continue
            command = [sys.executable, __file__, "--one", name, "--repeats", str(given.repeats)]
            made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if made.returncode:
                print(f"{name}: no line, its process ended with {made.returncode}", flush=True)
                continue
            write(given.out, json.loads(made.stdout))
            print(made.stdout, end="", flush=True)
    else:
        parser.error("give --out or --table")


if __name__ == "__main__":
    main()
