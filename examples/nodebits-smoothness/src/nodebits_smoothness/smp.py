"""SMP with its constraint; without it SMP is nodebits' own model ``smp``."""

from __future__ import annotations

from torch import nn

from nodebits.models import ModelSpec, register_model
from nodebits.models.propagated import PropagationModel
from nodebits.models.recipe import NODE
from nodebits_smoothness.smp_conv import SmoothnessConstraint, SMPConv


@register_model("smp-adjacency", node=NODE)
def smp_adjacency(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then steps held back by a multiplier, as in the authors' release."""
    return _constrained(spec, out_channels, SmoothnessConstraint("adjacency"))


@register_model("smp-laplacian", node=NODE)
def smp_laplacian(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then steps held back by a multiplier, as the Lagrangian says."""
    return _constrained(spec, out_channels, SmoothnessConstraint("laplacian"))


def _constrained(spec: ModelSpec, out_channels: int, constraint: SmoothnessConstraint) -> nn.Module:
    layer = SMPConv(spec.steps, spec.teleport, out_channels, constraint)
    return PropagationModel(spec, out_channels, layer)
