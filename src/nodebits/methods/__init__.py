"""Quantization methods: one config per method; ``prepare`` and ``calibrate``."""

from nodebits.methods.a2q import A2QConfig
from nodebits.methods.base import QuantConfig, make_config, method_names, register_method
from nodebits.methods.calibrate import calibrate
from nodebits.methods.degree_quant import DegreeQuantConfig
from nodebits.methods.mixq import MixQConfig
from nodebits.methods.prepare import prepare
from nodebits.methods.sgquant import SGQuantConfig
from nodebits.methods.smp import SMPConfig
from nodebits.methods.uniform import UniformConfig

__all__ = [
    "A2QConfig",
    "DegreeQuantConfig",
    "MixQConfig",
    "QuantConfig",
    "SGQuantConfig",
    "SMPConfig",
    "UniformConfig",
    "calibrate",
    "make_config",
    "method_names",
    "prepare",
    "register_method",
]
