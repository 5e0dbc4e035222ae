"""SMP."""

from __future__ import annotations

from torch import nn

from nodebits.core.registry import MODELS
from nodebits.models.recipe import NODE, register_model
from nodebits.models.spec import ModelSpec


@register_model("smp", node=NODE)
def smp(spec: ModelSpec, out_channels: int) -> nn.Module:
    """The steps of appnp; SMP's constraint on them did not help (docs/deep.md)."""
    model: nn.Module = MODELS.get("appnp").build(spec, out_channels)
    return model
