"""A small planted-partition graph: two classes, informative but noisy features."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.utils import stochastic_blockmodel_graph, to_undirected


def planted_graph(nodes: int = 120, features: int = 12, seed: int = 0) -> Data:
    """Two communities of equal size, with masks of 20, 40 and the remaining nodes."""
    generator = torch.Generator().manual_seed(seed)
    half = nodes // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        edges = stochastic_blockmodel_graph([half, half], [[0.12, 0.02], [0.02, 0.12]])
    y = torch.arange(nodes) // half
    x = torch.randn(nodes, features, generator=generator) + 0.8 * y.view(-1, 1)
    order = torch.randperm(nodes, generator=generator)
    masks = {}
    for name, part in (("train", order[:20]), ("val", order[20:60]), ("test", order[60:])):
        masks[f"{name}_mask"] = torch.zeros(nodes, dtype=torch.bool).index_fill(0, part, True)
    return Data(x=x, edge_index=to_undirected(edges), y=y, **masks)


def planted_graphs(count: int = 40) -> list[Data]:
    """Graphs of two kinds that differ in their features' mean."""
    graphs = []
    for number in range(count):
        label = number % 2
        nodes = 6 + number % 5
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(nodes, 4, generator=generator) + 1.5 * label
        ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
        graphs.append(Data(x=x, edge_index=to_undirected(ring), y=torch.tensor([label])))
    return graphs
