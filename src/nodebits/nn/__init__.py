"""Layers with sites: one file each. A new one registers itself and is imported by its folder."""

import importlib
import pkgutil

from nodebits.nn.layer import QuantLayer
from nodebits.nn.placement import SiteInfo
from nodebits.nn.propagate.layer import QuantMessagePassing
from nodebits.nn.registry import supported_layers

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "QuantLayer",
    "QuantMessagePassing",
    "SiteInfo",
    "supported_layers",
]
