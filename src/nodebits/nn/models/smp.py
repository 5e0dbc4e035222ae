"""SMP."""

from __future__ import annotations

from torch import nn

from nodebits.nn.models.propagated import PropagationModel
from nodebits.nn.models.recipe import NODE, register_model
from nodebits.nn.models.spec import ModelSpec
from nodebits.nn.smp_conv import SmoothnessConstraint, SMPConv


@register_model("smp", node=NODE)
def smp(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then steps that a constraint keeps small."""
    constraint = SmoothnessConstraint(spec.operator, spec.multiplier, spec.tolerance)
    layer = SMPConv(spec.steps, spec.teleport, out_channels, constraint)
    return PropagationModel(spec, out_channels, layer)
