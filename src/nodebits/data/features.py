"""Features for graphs that come without: the degree, as the graph classification papers use it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch_geometric.data import Data
from torch_geometric.utils import degree

# Above this a one-hot degree is wider than any hidden layer; the limit of PyG's benchmark and
# Degree-Quant.
MAX_ONE_HOT_DEGREE = 1000


def add_degree_features(graphs: Sequence[Data]) -> str:
    """Sets ``x`` of every graph from its node degrees.

    With a largest degree below 1000, ``x`` is the one-hot degree, float32 ``[N, max_degree + 1]``
    (Xu et al., How Powerful are Graph Neural Networks); else the single column ``(degree - mean) /
    std`` over all nodes.

    Args:
        graphs: All graphs of the set; changed in place.

    Returns:
        A sentence that says what was done, for ``Dataset.notes``.
    """
    degrees = [degree(g.edge_index[0], g.num_nodes, dtype=torch.long) for g in graphs]
    largest = max(int(d.max()) for d in degrees if d.numel())
    if largest < MAX_ONE_HOT_DEGREE:
        for graph, d in zip(graphs, degrees, strict=True):
            graph.x = functional.one_hot(d, largest + 1).float()
        return f"Features: one-hot degree (0 to {largest})."
    every = torch.cat(degrees).float()
    mean, std = every.mean(), every.std()
    for graph, d in zip(graphs, degrees, strict=True):
        graph.x = ((d.float() - mean) / std).view(-1, 1)
    return f"Features: (degree - {float(mean):.4f}) / {float(std):.4f}, one column."
