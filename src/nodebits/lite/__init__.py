"""Packed models on numpy arrays: no torch, no PyG, no scipy.

As a rule::

    from nodebits.lite import load
    model = load("model.safetensors")
    logits = model.predict(x, edge_index)
"""

from ..core import errors
from .instruction_sets import isa, isa_levels, set_isa
from .model import Input, Model, load
from .run import Features

__all__ = ["Features", "Input", "Model", "errors", "isa", "isa_levels", "load", "set_isa"]
