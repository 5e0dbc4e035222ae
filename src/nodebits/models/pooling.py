"""Pooling of a graph's nodes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch_geometric.nn import global_add_pool, global_mean_pool


def pooling(name: str) -> Callable[..., Tensor]:
    """Pools the nodes of every graph: ``"mean"`` or ``"add"``."""
    pool: Callable[..., Tensor] = global_mean_pool if name == "mean" else global_add_pool
    return pool
