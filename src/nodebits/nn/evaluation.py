"""Modules of others whose evaluation is computed in another way, to bits that steps can repeat.

Such a module stays the same object, with its parameters, hooks, mode and names: only its class is
another. In training it is what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

_SWAPPED: dict[type[nn.Module], type[nn.Module]] = {}
C = TypeVar("C", bound=type[nn.Module])


def evaluates(float_type: type[nn.Module]) -> Callable[[C], C]:
    """Class decorator: modules of exactly this type become of the class."""

    def decorate(cls: C) -> C:
        _SWAPPED[float_type] = cls
        return cls

    return decorate


def swap_evaluation(module: nn.Module) -> None:
    """Makes a module one of another class, if there is one; anything else stays what it is.

    By exact type, since a subclass may compute otherwise; likewise a module with a ``forward`` of
    its own.
    """
    swapped = _SWAPPED.get(type(module))
    if swapped is not None and "forward" not in vars(module):
        module.__class__ = swapped


def type_of(module: nn.Module) -> type[nn.Module]:
    """The type that a module is or was."""
    own = type(module)
    return next((before for before, after in _SWAPPED.items() if after is own), own)


def is_swapped(module: nn.Module) -> bool:
    """Whether a module is of a class that others become."""
    return type(module) in _SWAPPED.values()
