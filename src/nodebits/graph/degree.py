"""What is asked of degrees: a root, and the protection probabilities of Degree-Quant."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, GraphError
from nodebits.core.outcomes import noted


def protection_probability(
    degree: Tensor, p_min: float, p_max: float, batch: Tensor | None = None
) -> Tensor:
    """Probability with which each node is kept in float during a training step.

    ``p_i = p_min + (p_max - p_min) * |{j : d_j <= d_i}| / n``, the inclusive empirical distribution
    of the in-degree within the node's own graph (Degree-Quant, section 4 of the method).

    Args:
        degree: In-degrees before self loops are added, ``[N]``.
        p_min: Lower end, in [0, 1].
        p_max: Upper end, in [p_min, 1].
        batch: int64 ``[N]``, graph of each node; None for one graph.

    Returns:
        float32 ``[N]``.

    Raises:
        ConfigError: If the ends are not ``0 <= p_min <= p_max <= 1``.
    """
    if not 0.0 <= p_min <= p_max <= 1.0:
        raise ConfigError(f"p_min={p_min}, p_max={p_max}: need 0 <= p_min <= p_max <= 1")
    n = degree.numel()
    if n == 0:
        return degree.float()
    if batch is None:
        ranked = degree.sort().values
        share = torch.searchsorted(ranked, degree, right=True).float() / n
    else:
        # One sort for all graphs: the graph number is the leading digit of the key.
        span = int(degree.max()) + 1
        key = batch.long() * span + degree.long()
        ranked = key.sort().values
        position = torch.searchsorted(ranked, key, right=True)
        sizes = torch.bincount(batch)
        starts = sizes.cumsum(0) - sizes
        share = (position - starts[batch]).float() / sizes[batch].float()
    return p_min + (p_max - p_min) * share


def check_degree(degree: Tensor) -> None:
    """Refuses weighted in-degrees ``[N]`` of which GCN's normalisation has no root.

    Raises:
        GraphError: Names the first node below 0.
    """
    if noted(lambda: (degree < 0).any()):
        return
    if degree.numel() and float(degree.min()) < 0:
        node = int((degree < 0).nonzero()[0])
        raise GraphError(
            f"deg_inv_sqrt: node {node} has the weighted in-degree {float(degree[node]):.6g} "
            "(loops included), but GCN's normalisation takes its root and needs 0 or more: use "
            "edge weights that are not negative, or normalize=False with normalised weights"
        )


def weight_sums(indices: Tensor, count: int, weight: Tensor) -> Tensor:
    """Sums of the weights of every node's edges, float64 ``[count]``.

    In float64 sums of weights of one size are exact, and so the same in any order.

    Args:
        indices: int32 or int64 ``[E]``, source or target of each edge.
        count: Number of sources or targets.
        weight: float32 ``[E]``.
    """
    sums = weight.new_zeros(count, dtype=torch.float64)
    return sums.index_add(0, indices, weight.double())
