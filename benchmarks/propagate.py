"""PyG's layers in float32 against their packed forms, which run the same messages on tiles.

    python benchmarks/propagate.py --out benchmarks/results/propagate.jsonl [--layers GATv2 GINE]

A random graph of 30,000 nodes and 800,000 edges, whose sources are unevenly likely; 128 columns,
one thread, 8 bits. PyG's float layer and the packed one run in turns; the least time of each
counts. Errors are those of the packed result against the float one. A line of the file is one
layer.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_geometric
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.ops import current_isa

NODES, EDGES, COLUMNS, EDGE_COLUMNS = 30_000, 800_000, 128, 16


def mlp(columns: int, out: int = 64) -> nn.Module:
    """Two linear maps."""
    return nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, out))


def layers(degrees: Tensor) -> dict[str, tuple[Callable[[], nn.Module], bool]]:
    """What makes a layer, and whether it takes edge features."""
    c = COLUMNS
    scalers = ["identity", "amplification", "attenuation"]
    return {
        "SAGE max": (lambda: pyg.SAGEConv(c, 64, aggr="max"), False),
        "GATv2": (lambda: pyg.GATv2Conv(c, 16, heads=4), False),
        "GINE": (lambda: pyg.GINEConv(mlp(c), edge_dim=EDGE_COLUMNS), True),
        "Transformer": (lambda: pyg.TransformerConv(c, 16, heads=4), False),
        "ResGated": (lambda: pyg.ResGatedGraphConv(c, 64), False),
        "GEN": (lambda: pyg.GENConv(c, 64), False),
        "FiLM": (lambda: pyg.FiLMConv(c, 64), False),
        "CG": (lambda: pyg.CGConv(c, EDGE_COLUMNS), True),
        "Edge": (lambda: pyg.EdgeConv(mlp(2 * c)), False),
        "PNA": (
            lambda: pyg.PNAConv(c, 64, ["mean", "min", "max", "std"], scalers, degrees),
            False,
        ),
    }


def graph() -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges and features of edges."""
    target = torch.randint(0, NODES, (EDGES,))
    source = (torch.rand(EDGES) ** 2 * NODES).long()
    x, attributes = torch.randn(NODES, COLUMNS), torch.randn(EDGES, EDGE_COLUMNS)
    return x, torch.stack([source, target]), attributes


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, layer: nn.Module, args: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    """Times of both, taken in turns, and the error of the packed result."""
    layer.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=8, mode="ptq"))
        nodebits.calibrate(prepared, *args)
        packed = nodebits.convert(prepared)
        expected, found = layer(*args), packed.predict(*args)
        floats, packs = [], []
        for _ in range(repeats):
            floats.append(seconds(lambda: layer(*args)))
            packs.append(seconds(lambda: packed.predict(*args)))
    return {
        "layer": name,
        "runs": getattr(packed.module, "runs", "integer sum"),
        "float_s": round(min(floats), 4),
        "packed_s": round(min(packs), 4),
        "ratio": round(min(floats) / min(packs), 2),
        "error": float((found - expected).norm() / expected.norm()),
    }


def main() -> None:
    """Measures the layers that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, edges, attributes = graph()
    degrees = torch.bincount(torch.bincount(edges[1], minlength=NODES))
    versions = {
        "torch": torch.__version__,
        "pyg": torch_geometric.__version__,
        "nodebits": nodebits.__version__,
        "isa": current_isa(),
        "threads": 1,
        "seed": 0,
    }
    for name, (make, with_edges) in layers(degrees).items():
        if given.layers and name not in given.layers:
            continue
        args = (x, edges, attributes) if with_edges else (x, edges)
        line = {**measure(name, make(), args, given.repeats), **versions}
        line["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
