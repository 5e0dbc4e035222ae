"""The config class of every method, by name: type checkers cannot ask the registry.

A new method has a line here; ``tests/test_exports.py`` holds the lines equal to the registry.
"""

from nodebits.methods.a2q import A2QConfig as A2QConfig
from nodebits.methods.degree_quant import DegreeQuantConfig as DegreeQuantConfig
from nodebits.methods.mixq import MixQConfig as MixQConfig
from nodebits.methods.sgquant import SGQuantConfig as SGQuantConfig
from nodebits.methods.smp import SMPConfig as SMPConfig
from nodebits.methods.uniform import UniformConfig as UniformConfig
