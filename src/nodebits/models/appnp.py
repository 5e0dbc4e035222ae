"""APPNP."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import APPNP

from nodebits.models.propagated import PropagationModel
from nodebits.models.recipe import NODE, register_model
from nodebits.models.spec import ModelSpec


@register_model("appnp", node=NODE)
def appnp(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then personalised PageRank (Klicpera et al. 2019)."""
    layer = APPNP(spec.steps, spec.teleport)
    layer.channels = out_channels  # ranges per column, see QuantAPPNP
    return PropagationModel(spec, out_channels, layer)
