"""DAGNN."""

from __future__ import annotations

from torch import nn

from nodebits.models.propagated import PropagationModel
from nodebits.models.recipe import NODE, register_model
from nodebits.models.spec import ModelSpec
from nodebits.nn.dagnn import DAGNNConv


@register_model("dagnn", node=NODE)
def dagnn(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then a learned mix of all steps (Liu et al. 2020)."""
    return PropagationModel(spec, out_channels, DAGNNConv(out_channels, spec.steps))
