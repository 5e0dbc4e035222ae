"""What runs the operators: a folder per way to run them, found by being here.

Each has ``register()``, which makes its functions the operators of its device, ``describe()``,
which says what runs there, and ``serves()``, which says what serves each operator.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType


def backends() -> Iterator[ModuleType]:
    """The folders, by name."""
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name):
        yield import_module(f"{__name__}.{found.name}")


def register() -> None:
    """Makes every backend that of its device."""
    for backend in backends():
        backend.register()


def describe() -> dict[str, str]:
    """What runs the operators on which device, in words; why its own kernels do not, if so."""
    return {device: words for one in backends() for device, words in one.describe().items()}


def serves() -> dict[str, dict[str, str]]:
    """By device and operator what serves it: ``"compiled"``, ``"triton"`` or ``"definition"``."""
    return {device: found for one in backends() for device, found in one.serves().items()}
