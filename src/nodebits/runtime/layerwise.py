"""What PyG's ``inference(loader)`` asks of its loader, told in words before it asserts it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn.models.basic_gnn import BasicGNN

from nodebits.core.errors import ConfigError


def check_layerwise(module: nn.Module, loader: Any) -> None:
    """Refuses loaders and models on which one layer at a time is not the whole model.

    Args:
        module: With a method ``inference``; one of the user's own is left to itself.
        loader: What that is given.

    Raises:
        ConfigError: Names the option.
    """
    if not isinstance(module, BasicGNN):
        return
    if module.jk_mode not in (None, "last"):
        raise ConfigError(
            f"the model joins the results of all layers (jk={module.jk_mode!r}), which "
            "inference(loader) does not keep: use predict, or jk='last'"
        )
    if not isinstance(loader, NeighborLoader):
        raise ConfigError(
            f"inference(loader) got a {type(loader).__name__}: pass a "
            "torch_geometric.loader.NeighborLoader, or call predict on every batch"
        )
    hops = len(loader.node_sampler.num_neighbors)
    if hops != 1:
        raise ConfigError(
            f"inference(loader) got a loader of {hops} hops: it runs one layer at a time, so use "
            "num_neighbors=[-1]"
        )
    if len(loader.dataset) != loader.data.num_nodes:
        raise ConfigError(
            f"inference(loader) got a loader of {len(loader.dataset)} nodes, but the graph has "
            f"{loader.data.num_nodes}: every layer needs all of them, input_nodes=None"
        )
