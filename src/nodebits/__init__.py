"""Train, compress, store and run graph neural networks on 1- to 8-bit integers.

prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=4))
nodebits.fit(prepared, data)
packed = nodebits.convert(prepared)
logits = packed.predict(data.x, data.edge_index)
packed.save("model.safetensors")
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> package that has it. Imported at first use, so that `nodebits --help` does not wait for
# torch.
_EXPORTS = {
    "A2QConfig": "methods",
    "DegreeQuantConfig": "methods",
    "FitConfig": "train",
    "Graph": "graph",
    "ModelSpec": "nn",
    "NodebitsError": "core.errors",
    "PackedModel": "runtime",
    "QTensor": "core.qtensor",
    "SGQuantConfig": "methods",
    "SMPConfig": "methods",
    "UniformConfig": "methods",
    "build_model": "nn",
    "calibrate": "methods",
    "convert": "runtime",
    "fit": "train",
    "graph_scope": "graph",
    "load": "runtime",
    "load_dataset": "data",
    "make_config": "methods",
    "prepare": "methods",
}

__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"nodebits.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'nodebits' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
