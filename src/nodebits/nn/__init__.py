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
from nodebits.nn.propagate.layer import QuantMessagePassing

__all__ = [
    "QuantLayer",
    "QuantMessagePassing",
    "SiteInfo",
    "agnn_conv",
    "appnp",
    "dagnn",
    "embedding",
    "gat_conv",
    "gcn2_conv",
    "gcn_conv",
    "gin_conv",
    "linear",
    "multihead_attention",
    "neighbor_conv",
    "propagate",
    "supported_layers",
]
