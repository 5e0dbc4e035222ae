"""Elastic GNN."""

from __future__ import annotations

from torch import nn

from nodebits.models import ModelSpec, register_model
from nodebits.models.propagated import PropagationModel
from nodebits.models.recipe import NODE
from nodebits_smoothness.elastic_conv import ElasticConv


@register_model("elastic", node=NODE)
def elastic(spec: ModelSpec, out_channels: int) -> nn.Module:
    """An MLP, then elastic message passing (Liu et al. 2021)."""
    return PropagationModel(spec, out_channels, ElasticConv(spec.steps, channels=out_channels))
