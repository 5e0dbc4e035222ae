"""Train, compress, store and run graph neural networks on 1- to 8-bit integers.

As a rule::

    prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=4))
    nodebits.fit(prepared, data)
    packed = nodebits.convert(prepared)
    logits = packed.predict(data.x, data.edge_index)
    packed.save("model.safetensors")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodebits.core.errors import NodebitsError as NodebitsError
    from nodebits.data import load_dataset as load_dataset
    from nodebits.engine.rows import Rows as Rows
    from nodebits.graph import Graph as Graph
    from nodebits.graph import graph_scope as graph_scope
    from nodebits.methods._configs import *  # noqa: F403  a stub, made from the registry
    from nodebits.methods.base import make_config as make_config
    from nodebits.methods.calibrate import calibrate as calibrate
    from nodebits.methods.prepare import prepare as prepare
    from nodebits.models import ModelSpec as ModelSpec
    from nodebits.models import build_model as build_model
    from nodebits.out_of_core.predict import predict_out_of_core as predict_out_of_core
    from nodebits.runtime import PackedModel as PackedModel
    from nodebits.runtime import load as load
    from nodebits.runtime.check import check as check
    from nodebits.runtime.convert import convert as convert
    from nodebits.runtime.sites import sites as sites
    from nodebits.session.session import GraphSession as GraphSession
    from nodebits.store.features import PackedFeatures as PackedFeatures
    from nodebits.store.loader import PackedFeatureStore as PackedFeatureStore
    from nodebits.store.packing import Packing as Packing
    from nodebits.store.write import pack_features as pack_features
    from nodebits.train import FitConfig as FitConfig
    from nodebits.train.fit import fit as fit

__version__ = "0.1.0"

# The same for the interpreter, which imports a name at its first use: `nodebits --help` does not
# wait for torch. A test compares the two.
_EXPORTS = {
    "core.errors": ("NodebitsError",),
    "engine.rows": ("Rows",),
    "data": ("load_dataset",),
    "graph": ("Graph", "graph_scope"),
    "methods": ("calibrate", "make_config", "prepare"),
    "models": ("ModelSpec", "build_model"),
    "out_of_core.predict": ("predict_out_of_core",),
    "runtime": ("PackedModel", "convert", "load"),
    "runtime.check": ("check",),
    "runtime.sites": ("sites",),
    "session.session": ("GraphSession",),
    "store.features": ("PackedFeatures",),
    "store.loader": ("PackedFeatureStore",),
    "store.packing": ("Packing",),
    "store.write": ("pack_features",),
    "train": ("FitConfig", "fit"),
}
# Packages of names for those who need more; `nodebits.train` works without an import of its own.
_PACKAGES = (
    "data",
    "graph",
    "lite",
    "methods",
    "models",
    "runtime",
    "search",
    "session",
    "tasks",
    "train",
)
_HOMES = {name: home for home, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # for `from nodebits import *`
        return __dir__()
    if name in _HOMES:
        return getattr(importlib.import_module(f"nodebits.{_HOMES[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"nodebits.{name}")
    if name.endswith("Config"):
        from nodebits.core.registry import METHODS

        method = METHODS.definitions.get(name)
        if method is not None:
            return METHODS.get(method)
    raise AttributeError(f"module 'nodebits' has no attribute {name!r}")


def __dir__() -> list[str]:
    from nodebits.core.registry import METHODS  # a method's config is exported by itself

    return sorted({*_HOMES, *METHODS.definitions, "__version__"})
