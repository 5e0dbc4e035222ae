"""A packed model on a graph larger than memory: time and peak memory, with the same bits.

    python benchmarks/out_of_core.py --out benchmarks/results/out_of_core.json
    python benchmarks/out_of_core.py --nodes 2449029 --edges 123718280 --memory 4GiB --no-compare

The graph is generated into files: as many nodes and edges, sources drawn with weights that fall as
a power of the node's number, 100 normal features. A GraphSAGE of three layers is calibrated on a
part. The process that runs it is one of its own, whose peak is its largest resident size. By
default the sizes are a hundredth of ogbn-products', and the result is compared with that in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.nn import GraphSAGE

import nodebits
from nodebits.bench.environment import describe_environment
from nodebits.ops import current_isa

FEATURES, CLASSES = 100, 47
_CHUNK = 1 << 22


def generate(folder: Path, nodes: int, edges: int) -> None:
    """Writes ``x.npy`` and ``edges.npy``, a part at a time."""
    generator = np.random.default_rng(0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (nodes, FEATURES))
    for at in range(0, nodes, _CHUNK // FEATURES):
        part = x[at : at + _CHUNK // FEATURES]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32)
    both = np.lib.format.open_memmap(folder / "edges.npy", "w+", np.int64, (2, edges))
    for at in range(0, edges, _CHUNK):
        count = min(_CHUNK, edges - at)
        both[0, at : at + count] = nodes * generator.random(count) ** 2  # some are drawn often
        both[1, at : at + count] = generator.integers(0, nodes, count)
    x.flush()
    both.flush()


def make_model(folder: Path, hidden: int, bits: int) -> None:
    """Writes ``model.safetensors``, calibrated on a small graph of the same features."""
    torch.manual_seed(0)
    model = GraphSAGE(FEATURES, hidden, 3, CLASSES).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=bits, mode="ptq"))
    x = torch.randn(2000, FEATURES)
    nodebits.calibrate(prepared, x, torch.randint(2000, (2, 40_000)))
    nodebits.convert(prepared).save(folder / "model.safetensors")


def run(folder: Path, memory: str, threads: int) -> None:
    """The process that is measured; prints what it found."""
    torch.set_num_threads(threads)
    packed = nodebits.load(folder / "model.safetensors")
    x, edges = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "edges"))
    start = time.perf_counter()
    nodebits.predict_out_of_core(packed, x, edges, folder=folder / "run", memory=memory)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What the file holds."""
    generate(folder, options.nodes, options.edges)
    make_model(folder, options.hidden, options.bits)
    command = [sys.executable, __file__, "--run", str(folder), "--memory", options.memory]
    command += ["--threads", str(options.threads)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {
        "command": ["python", "benchmarks/out_of_core.py", *sys.argv[1:]],
        "environment": {**describe_environment(), "isa": current_isa()},
        "load_average": os.getloadavg()[0],
        "nodes": options.nodes,
        "edges": options.edges,
        "model": f"GraphSAGE {FEATURES}-{options.hidden}-{options.hidden}-{CLASSES}",
        "bits": options.bits,
        "memory": options.memory,
        **json.loads(told.splitlines()[-1]),
    }
    if options.compare:
        packed = nodebits.load(folder / "model.safetensors")
        x, edges = (torch.from_numpy(np.load(folder / f"{n}.npy")) for n in ("x", "edges"))
        (value,) = (folder / "run").glob("value-*.bin")
        of_disk = np.fromfile(value, np.float32).reshape(options.nodes, CLASSES)
        expected = packed.predict(x, edges).numpy()
        found["rows_with_other_bits"] = int((of_disk != expected).any(1).sum())
    return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--nodes", type=int, default=24_490)
    parser.add_argument("--edges", type=int, default=1_237_182)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compare", dest="compare", action="store_false")
    parser.add_argument("--folder", type=Path, help="where files go; by default a temporary one")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        run(options.run, options.memory, options.threads)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(options, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
