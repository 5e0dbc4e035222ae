"""How often a layer propagates in a forward: every step has a site of its own."""

from __future__ import annotations

from typing import Any

from torch_geometric.nn import (
    ARMAConv,
    ChebConv,
    GatedGraphConv,
    HypergraphConv,
    MixHopConv,
    SGConv,
    SSGConv,
    TAGConv,
)

_STEPS: dict[type, Any] = {
    ARMAConv: lambda layer: layer.num_layers,
    ChebConv: lambda layer: len(layer.lins) - 1,
    GatedGraphConv: lambda layer: layer.num_layers,
    HypergraphConv: lambda _: 2,
    MixHopConv: lambda layer: max(layer.powers),
    SGConv: lambda layer: layer.K,
    SSGConv: lambda layer: layer.K,
    TAGConv: lambda layer: layer.K,
}
# Attributes that may say it of a layer of the user's own.
_NAMES = ("K", "num_steps", "steps", "num_layers")
_MOST = 64


def steps_of(layer: Any) -> tuple[int, bool]:
    """Steps of a forward, and whether that is certain; 1 where nothing speaks of more.

    Args:
        layer: A layer that passes messages.
    """
    for kind, count in _STEPS.items():
        if isinstance(layer, kind):
            return min(int(count(layer)), _MOST), True
    for name in _NAMES:
        value = getattr(layer, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            return min(value, _MOST), False
    return 1, False
