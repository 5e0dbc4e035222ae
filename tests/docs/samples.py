"""What the pages' commands read: a shop, papers, ratings, molecules, a graph, an own model."""

from __future__ import annotations

import json
import random
from pathlib import Path

MODEL = '''"""A model of the user's own."""

from torch import nn
from torch_geometric.nn import GCNConv


class Net(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, hidden: int = 8) -> None:
        super().__init__()
        self.first = GCNConv(in_channels, hidden)
        self.second = GCNConv(hidden, out_channels)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)
'''


def write(folder: Path) -> None:
    """Writes all of it below a folder."""
    draw = random.Random(0)
    _tables(folder / "shop", 60, "price", lambda i: f"{i % 7 + draw.random():.3f}")
    _tables(folder / "new", 20, None, None)
    _tables(folder / "papers", 60, "topic", lambda i: "abc"[i % 3])
    _ratings(folder / "ratings", draw)
    package = folder / "my_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(MODEL)
    _arrays(folder)
    (folder / "job.toml").write_text('dataset = "digits"\nbits = 8\n')


def _tables(folder: Path, count: int, target: str | None, value: object) -> None:
    folder.mkdir()
    head = ["id", "size", "kind"] + [target] * (target is not None)
    lines = [",".join(map(str, head))]
    for i in range(count):
        cells = [f"n{i}", f"{i % 5 / 5}", ("new", "old")[i % 2]]
        lines.append(",".join(cells + ([value(i)] if callable(value) else [])))
    (folder / "nodes.csv").write_text("\n".join(lines) + "\n")
    _edges(folder, count)


def _edges(folder: Path, count: int, extra: str = "") -> None:
    pairs = [(i, (i + step) % count) for i in range(count) for step in (1, 2, 5)]
    head = "source,target" + (",stars" if extra else "")
    lines = [f"n{a},n{b}" + (f",{(a + b) % 5}.5" if extra else "") for a, b in pairs]
    (folder / "edges.csv").write_text("\n".join([head, *lines]) + "\n")


def _ratings(folder: Path, draw: random.Random) -> None:
    del draw
    _tables(folder, 60, None, None)
    _edges(folder, 60, "stars")


def _arrays(folder: Path) -> None:
    import numpy as np
    import torch
    from torch_geometric.data import Data

    rng = np.random.default_rng(0)
    ring = np.arange(60)
    edges = np.stack([ring, np.roll(ring, 1)])
    np.savez(
        folder / "toxic.npz",
        x=rng.normal(size=(60, 5)).astype(np.float32),
        edge_index=np.stack([ring, ring // 6 * 6 + (ring + 1) % 6]),
        batch=ring // 6,
        y=(rng.random((10, 3)) > 0.5).astype(np.float32),
    )
    np.save(folder / "features.npy", rng.normal(size=(60, 8)).astype(np.float32))
    data = Data(
        x=torch.randn(60, 8, generator=torch.Generator().manual_seed(0)),
        edge_index=torch.from_numpy(np.concatenate([edges, edges[::-1]], 1).copy()),
        y=torch.arange(60) % 3,
    )
    torch.save(data, folder / "graph.pt")


def main(folder: str) -> None:
    """Writes them, and says so."""
    write(Path(folder))
    print(json.dumps(sorted(path.name for path in Path(folder).iterdir())))
