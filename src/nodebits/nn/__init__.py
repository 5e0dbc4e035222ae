"""Layers with sites. Importing this package registers all of them."""

from nodebits.nn import gat_conv, gcn_conv, gin_conv, linear, neighbor_conv
from nodebits.nn.layer import QuantLayer, SiteInfo, supported_layers
from nodebits.nn.models import ModelSpec, build_model, model_names

__all__ = [
    "ModelSpec",
    "QuantLayer",
    "SiteInfo",
    "build_model",
    "gat_conv",
    "gcn_conv",
    "gin_conv",
    "linear",
    "model_names",
    "neighbor_conv",
    "supported_layers",
]
