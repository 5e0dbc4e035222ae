"""Sizes, counts and names as reports word them, on a page and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping


def human_bytes(count: float) -> str:
    """Returns a size with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def count_of(number: int, noun: str) -> str:
    """Returns ``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def float_layer_list(layers: Mapping[str, str]) -> str:
    """Returns the layers that stayed in float as one phrase."""
    return ", ".join(f"{path or 'model'} ({name})" for path, name in layers.items()) or "none"
