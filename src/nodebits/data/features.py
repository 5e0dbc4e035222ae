"""Features for graphs that come without: the degree, as the graph classification papers use it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import degree

# Above this a one-hot degree is wider than any hidden layer; the limit of PyG's benchmark and
# Degree-Quant.
MAX_ONE_HOT_DEGREE = 1000


def add_degree_features(graphs: Sequence[Data]) -> str:
    """Sets ``x`` of every graph from its node degrees.

    With a largest degree below 1000, ``x`` is the one-hot degree, float32 ``[N, max_degree + 1]``
    (Xu et al., How Powerful are Graph Neural Networks); else the one-hot ``floor(log2(degree))``,
    degree 0 counting as 1. Degree-Quant's release takes the single column ``(degree - mean) / std``
    there; where hubs have thousands of neighbours that column is the same number for almost all
    nodes.

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
    bins = largest.bit_length()
    for graph, d in zip(graphs, degrees, strict=True):
        level = d.clamp_min(1).float().log2().floor().long()
        graph.x = functional.one_hot(level, bins).float()
    return f"Features: one-hot floor(log2(degree)), {bins} columns (largest degree {largest})."


def normalize_rows(x: Tensor) -> Tensor:
    """Divides rows by their sums, in place; the result is that of PyG's ``NormalizeFeatures``.

    Args:
        x: float32 ``[N, F]``; its least value becomes 0 first.
    """
    least = x.min() if x.numel() else 0.0
    if least != 0.0:
        x -= least
    return x.div_(x.sum(dim=-1, keepdim=True).clamp_(min=1.0))
