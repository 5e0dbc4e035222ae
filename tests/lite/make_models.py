"""Makes ``models/``: small packed models, inputs, and what nodebits computes of them.

    python tests/lite/make_models.py

Needs nodebits with torch. The tests compare nodebits.lite with these bits wherever they run; those
of the main suite also compare with nodebits itself.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GINConv, SAGEConv, global_add_pool, global_mean_pool

import nodebits

FOLDER = Path(__file__).parent / "models"
FEATURES, CLASSES = 16, 4


class GIN(nn.Module):
    """Four layers with batch norms, summed per graph."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        sizes = [FEATURES] + [channels] * 4
        self.convs = nn.ModuleList(
            GINConv(
                nn.Sequential(
                    nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Linear(b, b), nn.ReLU()
                )
            )
            for a, b in itertools.pairwise(sizes)
        )
        self.out = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Logits per graph."""
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.out(global_add_pool(x, batch))


class SAGE(nn.Module):
    """Means of neighbours and of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = SAGEConv(FEATURES, 24), SAGEConv(24, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Logits per graph."""
        return global_mean_pool(self.two(self.one(x, edge_index).relu(), edge_index), batch)


class GAT(nn.Module):
    """Attention of four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = GATConv(FEATURES, 8, heads=4), GATConv(32, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits per node."""
        return self.two(self.one(x, edge_index).relu(), edge_index)


def graph(nodes: int, seed: int, graphs: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges within each graph, and the graph of every node."""
    g = torch.Generator().manual_seed(seed)
    batch = torch.randint(0, graphs, (nodes,), generator=g).sort().values
    edges = torch.randint(0, nodes, (2, 8 * nodes), generator=g)
    edges = edges[:, batch[edges[0]] == batch[edges[1]]]
    return torch.randn(nodes, FEATURES, generator=g), edges, batch


def models() -> dict[str, tuple[nn.Module, bool, int]]:
    """Modules, whether they take ``batch``, and bits."""
    gcn = nodebits.build_model(nodebits.ModelSpec("gcn", FEATURES, 16, CLASSES))
    return {
        "gcn": (gcn, False, 4),
        "gin": (GIN(), True, 4),
        "sage": (SAGE(), True, 2),
        "gat": (GAT(), False, 8),
    }


# Of inputs that are kept: nodes and graphs.
CASES = ((60, 3), (1, 1), (200, 9))


def main() -> None:
    """Writes all of them."""
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    for name, (module, pooled, bits) in models().items():
        inputs = [graph(n, i, graphs)[: 3 if pooled else 2] for i, (n, graphs) in enumerate(CASES)]
        prepared = nodebits.prepare(module, nodebits.UniformConfig(bits=bits, mode="ptq"))
        nodebits.calibrate(prepared, inputs)
        packed = nodebits.convert(prepared)
        packed.plan(*inputs[0])
        path = FOLDER / f"{name}.safetensors"
        packed.save(path, metadata={"made_by": "tests/lite/make_models.py"})
        kept: dict[str, np.ndarray] = {}
        for i, given in enumerate(inputs):
            names = ("x", "edge_index", "batch")
            kept |= {f"{i}/{n}": t.numpy() for n, t in zip(names, given, strict=False)}
            kept[f"{i}/result"] = packed.predict(*given).numpy()
        np.savez_compressed(FOLDER / f"{name}.npz", **kept)
        print(f"{name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
