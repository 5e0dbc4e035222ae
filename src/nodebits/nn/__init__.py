"""Layers with sites. Importing this package registers all of them."""

from nodebits.nn import (
    agnn_conv,
    appnp,
    dagnn,
    embedding,
    gat_conv,
    gcn2_conv,
    gcn_conv,
    gin_conv,
    linear,
    multihead_attention,
    neighbor_conv,
    propagate,
)
from nodebits.nn.layer import QuantLayer, SiteInfo, supported_layers
from nodebits.nn.models import ModelSpec, build_model, model_names
from nodebits.nn.propagate.layer import QuantMessagePassing

__all__ = [
    "ModelSpec",
    "QuantLayer",
    "QuantMessagePassing",
    "SiteInfo",
    "agnn_conv",
    "appnp",
    "build_model",
    "dagnn",
    "embedding",
    "gat_conv",
    "gcn2_conv",
    "gcn_conv",
    "gin_conv",
    "linear",
    "model_names",
    "multihead_attention",
    "neighbor_conv",
    "propagate",
    "supported_layers",
]
