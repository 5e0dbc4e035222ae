r"""A packed model on a graph larger than memory: time and peak memory, with the same bits.

    R=benchmarks/results/out_of_core
    python benchmarks/out_of_core.py --out $R.jsonl
    python benchmarks/out_of_core.py --nodes 2449029 --edges 123718280 --memory 4GiB \
      --no-compare --out $R.jsonl
    python benchmarks/out_of_core.py --nodes 20000000 --edges 1000000000 --memory 8GiB \
      --no-compare --orders targets --out $R.jsonl
    python benchmarks/out_of_core.py --nodes 13882494 --edges 201960734 --columns 128 --layers 1 \
      --memory 1GiB --no-compare --orders targets --out $R.jsonl
    python benchmarks/out_of_core.py --table $R.jsonl > $R.md

The graph is generated into files: as many nodes and edges, sources drawn with weights that fall as
a power of the node's number, 100 normal features. A GraphSAGE of three layers is calibrated on a
part. The process that runs it is one of its own, whose peak is its largest resident size, and which
runs every order. Rows of other machines stay in the file. By default the sizes are a hundredth of
ogbn-products', and the result is compared with that in memory; the second graph has its size, the
third a billion edges. The fourth is one layer on an eighth of ogbn-papers100M, under an eighth of
8 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.nn import GraphSAGE

import nodebits
from machines import by_machine, renewed
from nodebits.bench.environment import describe_environment
from nodebits.ops import current_isa
from nodebits.out_of_core.predict import ORDERS, memory_bytes

CLASSES = 47
_CHUNK = 1 << 22
# What tells a row from others of a machine; one that is measured again replaces it.
KEY = ("nodes", "edges", "bits", "memory", "order")
TITLE = """# Graphs larger than memory

Made by `python benchmarks/out_of_core.py --table`; its text says what was measured, and how.

"""


def generate(folder: Path, nodes: int, edges: int, columns: int) -> None:
    """Writes ``x.npy`` and ``edges.npy``, a part at a time."""
    generator = np.random.default_rng(0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (nodes, columns))
    for at in range(0, nodes, _CHUNK // columns):
        part = x[at : at + _CHUNK // columns]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32)
    both = np.lib.format.open_memmap(folder / "edges.npy", "w+", np.int64, (2, edges))
    for at in range(0, edges, _CHUNK):
        count = min(_CHUNK, edges - at)
        both[0, at : at + count] = nodes * generator.random(count) ** 2  # some are drawn often
        both[1, at : at + count] = generator.integers(0, nodes, count)
    x.flush()
    both.flush()


def make_model(folder: Path, options: argparse.Namespace) -> None:
    """Writes ``model.safetensors``, calibrated on a small graph of the same features."""
    torch.manual_seed(0)
    model = GraphSAGE(options.columns, options.hidden, options.layers, CLASSES).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=options.bits, mode="ptq"))
    x = torch.randn(2000, options.columns)
    nodebits.calibrate(prepared, x, torch.randint(2000, (2, 40_000)))
    nodebits.convert(prepared).save(folder / "model.safetensors")


def model_name(options: argparse.Namespace) -> str:
    """Its columns, layer by layer."""
    columns = [options.columns, *[options.hidden] * (options.layers - 1), CLASSES]
    return f"GraphSAGE {'-'.join(map(str, columns))}"


def run(folder: Path, memory: str, threads: int, order: str) -> None:
    """The process that is measured; prints what it found."""
    torch.set_num_threads(threads)
    packed = nodebits.load(folder / "model.safetensors")
    x, edges = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "edges"))
    before, asked, own = _counted("read_bytes"), _counted("rchar"), _most()
    start = time.perf_counter()
    options = {"folder": folder / order, "memory": memory, "order": order}
    nodebits.predict_out_of_core(packed, x, edges, **options)
    told = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_bytes": _most(),
        "bytes_before": own,
        "read_bytes": _counted("read_bytes") - before,
        "asked_bytes": _counted("rchar") - asked,
    }
    print(json.dumps(told))


def _most() -> int:
    """The largest resident size; getrusage would tell that of the parent, where it is larger."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def _counted(name: str) -> int:
    """What this process has read: of the disk, or by calls, also where the system kept it."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)[name])


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the file, one for every order."""
    began = time.perf_counter()
    generate(folder, options.nodes, options.edges, options.columns)
    make_model(folder, options)
    print(f"generated in {time.perf_counter() - began:.0f} s", flush=True)
    bound = memory_bytes(options.memory)
    rows = []
    for order in options.orders:
        command = [sys.executable, __file__, "--run", str(folder), "--memory", options.memory]
        command += ["--threads", str(options.threads), "--orders", order]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(told.splitlines()[-1])
        row = {
            "command": f"python benchmarks/out_of_core.py --nodes {options.nodes} --edges "
            f"{options.edges} --columns {options.columns} --layers {options.layers} --memory "
            f"{options.memory} --orders {order}",
            "environment": {**describe_environment(), "isa": current_isa()},
            "load_average": round(os.getloadavg()[0], 1),
            "threads": options.threads,
            "nodes": options.nodes,
            "edges": options.edges,
            "model": model_name(options),
            "bits": options.bits,
            "memory": options.memory,
            "order": order,
            **found,
            "peak_of_bound": round(found["peak_bytes"] / bound, 3),
        }
        (value,) = (folder / order).glob("value-*.bin")
        of_disk = np.memmap(value, np.float32, "r", shape=(options.nodes, CLASSES))
        row["output_crc32"] = _digest(of_disk)
        if options.compare:
            packed = nodebits.load(folder / "model.safetensors")
            x, edges = (torch.from_numpy(np.load(folder / f"{n}.npy")) for n in ("x", "edges"))
            expected = packed.predict(x, edges).numpy()
            row["rows_with_other_bits"] = int((of_disk != expected).any(1).sum())
        shutil.rmtree(folder / order)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _digest(rows: Any) -> int:
    found = 0
    for at in range(0, len(rows), _CHUNK // CLASSES):
        found = zlib.crc32(np.ascontiguousarray(rows[at : at + _CHUNK // CLASSES]).data, found)
    return found


def table(path: Path) -> str:
    """Rows of a file as Markdown, each machine in a section of its own."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [f"## {machine}\n\n{_part(of)}" for machine, of in by_machine(rows).items()]
    return TITLE + "\n".join(parts)


def _part(rows: list[dict[str, Any]]) -> str:
    lines = [
        "Seconds are of a machine with other work; processor seconds are the process's own.",
        "",
        "| model | bits | nodes | edges | order | bound | peak | of the bound | s | cpu s | "
        "read GB | same bits |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    digests: dict[Any, dict[str, int]] = {}
    for row in rows:
        digests.setdefault((row["nodes"], row["edges"]), {})[row["order"]] = row["output_crc32"]
    for row in rows:
        other = row.get("rows_with_other_bits")
        found = digests[row["nodes"], row["edges"]]
        same = "as in memory" if other == 0 else f"{other} rows differ" if other else ""
        if not same and len(found) > 1:
            same = "in both orders" if len({*found.values()}) == 1 else "no"
        lines.append(
            f"| {row['model']} | {row['bits']} | {row['nodes']:,} | {row['edges']:,} "
            f"| {row['order']} | {row['memory']} "
            f"| {row['peak_bytes'] / 2**30:.2f} GiB | {100 * row['peak_of_bound']:.0f} % "
            f"| {row['seconds']:,.0f} | {row['cpu_seconds']:,.0f} "
            f"| {row['asked_bytes'] / 1e9:.1f} | {same} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON lines, to which rows are added")
    parser.add_argument("--table", type=Path, help="print the rows of a file as Markdown")
    parser.add_argument("--nodes", type=int, default=24_490)
    parser.add_argument("--edges", type=int, default=1_237_182)
    parser.add_argument("--columns", type=int, default=100, help="features of a node")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--memory", default="800MiB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--orders", nargs="+", default=list(ORDERS), choices=ORDERS)
    parser.add_argument("--no-compare", dest="compare", action="store_false")
    parser.add_argument("--folder", type=Path, help="where files go; by default a temporary one")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table is not None:
        print(table(options.table), end="")
        return
    if options.run is not None:
        run(options.run, options.memory, options.threads, options.orders[0])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(options, Path(folder))
    if options.out is not None:
        before = options.out.read_text().splitlines() if options.out.exists() else []
        kept = renewed([*map(json.loads, before), *rows], KEY)
        options.out.write_text("".join(json.dumps(row) + "\n" for row in kept))


if __name__ == "__main__":
    main()
