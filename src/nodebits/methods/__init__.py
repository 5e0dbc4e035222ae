"""Quantization methods: one config per method; ``prepare`` and ``calibrate``."""

from nodebits.methods.base import QuantConfig as QuantConfig
from nodebits.methods.base import make_config as make_config
from nodebits.methods.base import method_names as method_names
from nodebits.methods.base import register_method as register_method
from nodebits.methods.calibrate import calibrate as calibrate
from nodebits.methods.configs import *  # noqa: F403  one list of them is enough
from nodebits.methods.prepare import prepare as prepare
