"""Which layer with sites takes the place of which float layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from nodebits.core.registry import LAYERS
from nodebits.nn.layer import QuantLayer, stand_in

_by_float_type: dict[type[nn.Module], type[QuantLayer]] = {}
_by_base: dict[type[nn.Module], type[QuantLayer]] = {}
L = TypeVar("L", bound=type[QuantLayer])


def register_layer(*float_types: type[nn.Module]) -> Callable[[L], L]:
    """Class decorator: the layer replaces modules of exactly these types.

    Another package's layer has an entry point ``nodebits.layers`` of the class's name.
    """

    def decorate(cls: L) -> L:
        for float_type in float_types:
            _by_float_type[float_type] = stand_in(cls, float_type)
        LAYERS.add(cls.__name__, cls)
        return cls

    return decorate


def register_general(base: type[nn.Module]) -> Callable[[L], L]:
    """Class decorator: the layer replaces what derives from ``base``, for want of its own."""

    def decorate(cls: L) -> L:
        _by_base[base] = cls
        LAYERS.add(cls.__name__, cls)
        return cls

    return decorate


def layer_for(module: nn.Module) -> type[QuantLayer] | None:
    """The class that replaces ``module``, by exact type: a subclass may compute otherwise."""
    LAYERS.load_entry_points()
    return _by_float_type.get(type(module))


def general_layer_for(module: nn.Module) -> type[QuantLayer] | None:
    """The class that replaces ``module`` whatever it computes, if there is one for its base."""
    if isinstance(module, QuantLayer):
        return None
    found = (cls for base, cls in _by_base.items() if isinstance(module, base))
    return next((stand_in(cls, type(module)) for cls in found), None)


def derived_from(module: nn.Module) -> type[nn.Module] | None:
    """The supported type that the type of a float ``module`` is a subclass of, if any."""
    if isinstance(module, QuantLayer):
        return None
    return next((t for t in type(module).__mro__[1:] if t in _by_float_type), None)


def layer_by_name(name: str) -> type[QuantLayer]:
    """The layer class of a file.

    Raises:
        UnknownNameError: If neither this version nor another package knows it.
        ConfigError: If the package that adds it cannot be loaded.
    """
    found: type[QuantLayer] = LAYERS.get(name)
    return found


def supported_layers() -> list[str]:
    """Names of the float layers that have a quantized form."""
    LAYERS.load_entry_points()
    return sorted({f"{t.__module__.split('.')[0]}.{t.__name__}" for t in _by_float_type})
