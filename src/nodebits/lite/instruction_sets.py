"""Which instructions the library computes with; results do not depend on them."""

from __future__ import annotations

import ctypes

from .library import check, library


def isa() -> str:
    """The instruction set in use: the best of the machine, or what ``NODEBITS_ISA`` says."""
    name: bytes = library().nb_isa()
    return name.decode()


def set_isa(name: str) -> None:
    """Switches the whole process.

    Raises:
        UnsupportedIsaError: If the set is unknown, or the machine lacks it.
    """
    check(library().nb_set_isa(name.encode()))


def isa_levels() -> dict[str, bool]:
    """All instruction sets, slowest first, and whether this machine has them."""
    found: dict[str, bool] = {}
    available = ctypes.c_int()
    while name := library().nb_isa_level(len(found), ctypes.byref(available)):
        found[name.decode()] = bool(available.value)
    return found
