"""What ``nodebits.check`` takes on graphs of Cora's size, one thread, after imports.

    python benchmarks/check_time.py [--root FOLDER]

Without a folder that has Cora, a random graph of its size and its sparse features stands for it.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GIN, PNA, GATConv, GraphSAGE, HeteroConv, SAGEConv
from torch_geometric.utils import degree

import nodebits
from nodebits.runtime.check import check

HIDDEN, CLASSES = 64, 7


class Hetero(nn.Module):
    """Two layers over two types of nodes and three of edges."""

    def __init__(self, types: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.first = HeteroConv({kind: SAGEConv((-1, -1), HIDDEN) for kind in types})
        self.second = HeteroConv(
            {kind: GATConv((-1, -1), CLASSES, add_self_loops=False) for kind in types}
        )

    def forward(self, x: dict[str, Tensor], edges: dict[Any, Tensor]) -> dict[str, Tensor]:
        x = {name: rows.relu() for name, rows in self.first(x, edges).items()}
        made: dict[str, Tensor] = self.second(x, edges)
        return made


def graph(root: Path | None) -> tuple[Tensor, Tensor]:
    """Features and edges."""
    if root is not None:
        data = nodebits.load_dataset("Cora", root).data
        return data.x, data.edge_index
    nodes, edges, columns = 2708, 10556, 1433
    return (torch.rand(nodes, columns) < 0.013).float(), torch.randint(nodes, (2, edges))


def cases(x: Tensor, edges: Tensor) -> dict[str, Callable[[], tuple[nn.Module, Any, Any]]]:
    """Models with what they take, by name."""
    columns = x.size(1)
    degrees = torch.bincount(degree(edges[1], x.size(0)).long())
    pna: dict[str, Any] = {
        "aggregators": ["mean", "min", "max", "std"],
        "scalers": ["identity", "amplification", "attenuation"],
        "deg": degrees,
    }

    def plain(kind: Any, **options: Any) -> Callable[[], tuple[nn.Module, Any, Any]]:
        return lambda: (kind(columns, HIDDEN, 2, CLASSES, **options), x, edges)

    def hetero() -> tuple[nn.Module, Any, Any]:
        kinds = {("a", "to", "b"): edges, ("b", "to", "a"): edges.flip(0), ("a", "of", "a"): edges}
        rows = {"a": x, "b": x[:, :500].contiguous()}
        model = Hetero(list(kinds))
        with torch.no_grad():
            model(rows, kinds)
        return model, rows, kinds

    return {
        "GCN": plain(GCN),
        "SAGE": plain(GraphSAGE),
        "GAT": plain(GAT, heads=8),
        "GIN": plain(GIN),
        "PNA": plain(PNA, **pna),
        "HeteroConv": hetero,
    }


def main() -> None:
    """Prints a row per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, edges = graph(parser.parse_args().root)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, seed 0\n")
    print("| model | seconds | nodes tried | widths tried |\n|---|---|---|---|")
    for name, case in cases(x, edges).items():
        model, *example = case()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = check(model.eval(), *example)
        nodes = "all" if found.nodes is None else found.nodes
        widths = ", ".join(map(str, sorted(found.errors, reverse=True)))
        print(f"| {name} | {found.seconds:.2f} | {nodes} | {widths} |")


if __name__ == "__main__":
    main()
