"""Packed rows beside float on a CUDA device: sums, products, forwards, batches, a training step.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json [--graph reddit-like]
    python benchmarks/gpu.py --table benchmarks/results/gpu.json

Peers are cuSPARSE (``torch.sparse.mm`` of CSR), kernels that reduce segments (torch's, and those of
torch-scatter, torch-sparse and pyg-lib where they are installed), dense products, and PyG's models
eager and compiled, each in float32, float16 and bfloat16. The integers are compared with those of
the CPU before they are timed. Calls are made in turns and end when the device is done; the median
counts. A peer that cannot run is a row with its reason. Without a card the program says so and ends
with code 2. ``--table`` prints a file's rows as Markdown, without a card too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gpu_calls
from gpu_calls import Calls
from nodebits.bench.environment import versions
from nodebits.bench.speed.graphs import load_graph
from nodebits.bench.timing import measure_interleaved
from nodebits.ops.backends.triton import choice

PARTS = ("sums", "products", "forward", "molecules", "host", "train")
# What a peer says that cannot run here: torch's words, and libraries that are not installed.
_UNABLE = (RuntimeError, TypeError, ValueError, NotImplementedError, ImportError, AttributeError)


def timed(calls: Calls, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """A row per call: milliseconds and the memory that it takes beyond what was held before it."""
    reasons, rows, able = {}, [], {}
    for name, call in calls.items():
        try:
            rows.append({"name": name, "extra_bytes": _extra_bytes(call, device)})
            able[name] = lambda call=call: _done(call, device)
        except _UNABLE as error:
            if name.startswith("nodebits"):
                raise
            rows.append({"name": name})
            reasons[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    times = measure_interleaved(able, repeats) if able else {}
    for row in rows:
        name = row["name"]
        row.update(times[name].to_json() if name in times else {"reason": reasons[name]})
    return rows


def _done(call: Callable[[], Any], device: torch.device) -> Any:
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result


def _extra_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    if device.type != "cuda":
        _done(call, device)
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _done(call, device)
    return torch.cuda.max_memory_allocated(device) - before


def _is_float32(row: dict[str, Any]) -> bool:
    """Whether a row was measured, of a peer in float32."""
    name = str(row["name"])
    return "median" in row and ("float32" in name or name.startswith("float"))


def table_of(report: dict[str, Any]) -> str:
    """The rows of a report as Markdown; times beside the fastest float32 peer of each part."""
    about = f"{report['card']}, CUDA {report['cuda']}, {report['graph']}"
    lines = [about, "", "| part | what | ms | 90 % below | times float32 | MiB more |"]
    lines.append("|---|---|---|---|---|---|")
    for part, rows in report["rows"].items():
        floats = [row["median"] for row in rows if _is_float32(row)]
        for row in rows:
            if "reason" in row:
                lines.append(f"| {part} | {row['name']} | {row['reason']} | | | |")
                continue
            ratio = f"{min(floats) / row['median']:.2f}" if floats else ""
            extra = row.get("extra_bytes")
            more = "" if extra is None else f"{extra / 2**20:.0f}"
            times = f"{row['median']:.3f} | {row['p90']:.3f}"
            lines.append(f"| {part} | {row['name']} | {times} | {ratio} | {more} |")
    return "\n".join(lines)


def measured(asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The report: what was asked for, where, and a row per call of each part."""
    found = load_graph(asked.graph)
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda,
        "versions": versions(),
        "graph": asked.graph,
        "columns": asked.columns,
        "hidden": asked.hidden,
        "shape": list(asked.shape),
        "graphs": asked.graphs,
        "rows": {},
    }
    parts = {
        "sums": lambda: gpu_calls.sums(found, asked.columns, device),
        "products": lambda: gpu_calls.products(tuple(asked.shape), device),
        "forward": lambda: gpu_calls.forwards(found, asked.hidden, device),
        "molecules": lambda: gpu_calls.batches(asked.graphs, asked.hidden, device),
        "host": lambda: gpu_calls.taken(asked.shape[0], asked.columns, device),
        "train": lambda: gpu_calls.steps(found, asked.hidden, device),
    }
    for name in asked.only:
        calls = parts[name]()
        with torch.set_grad_enabled(name == "train"):
            report["rows"][name] = timed(calls, device, asked.repeats)
        for row in report["rows"][name]:
            print(name, row["name"], row.get("median", row.get("reason")))
    return report


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes, or prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", default="reddit-like", help="as of nodebits bench")
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--shape", type=int, nargs=3, default=(232_965, 602, 128))
    parser.add_argument("--graphs", type=int, default=4096, help="molecules of a batch")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the rows of this file, measure nothing")
    asked = parser.parse_args(arguments)
    if asked.table is not None:
        print(table_of(json.loads(asked.table.read_text(encoding="utf-8"))))
        return 0
    problem = choice.device_problem() or choice.triton_problem()
    if problem is not None:
        print(f"benchmarks/gpu.py measures kernels on a CUDA device: {problem}", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    report = measured(asked, torch.device("cuda"))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
