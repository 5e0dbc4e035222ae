"""Quantization methods: one config per method; ``prepare`` and ``calibrate``."""

from typing import TYPE_CHECKING, Any

from nodebits.core.registry import METHODS
from nodebits.methods.base import QuantConfig as QuantConfig
from nodebits.methods.base import make_config as make_config
from nodebits.methods.base import method_names as method_names
from nodebits.methods.base import register_method as register_method
from nodebits.methods.calibrate import calibrate as calibrate
from nodebits.methods.prepare import prepare as prepare

if TYPE_CHECKING:
    from nodebits.methods._configs import *  # noqa: F403  a stub, made from the registry


def __getattr__(name: str) -> Any:
    method = METHODS.definitions.get(name) if name.endswith("Config") else None
    if method is None:
        raise AttributeError(f"module 'nodebits.methods' has no attribute {name!r}")
    return METHODS.get(method)
