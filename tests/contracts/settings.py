"""Values that a class of settings must refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def wrong_values(settings: type) -> Iterator[tuple[str, Any]]:
    """Yields every field with values of types that its annotation does not name."""
    for field in dataclasses.fields(settings):
        hint = str(field.type)
        yield field.name, object()
        yield field.name, ["x"]
        if "str" not in hint:
            yield field.name, "4"
        if "bool" not in hint:
            yield field.name, True
        if "float" in hint:
            yield field.name, float("nan")
            yield field.name, float("inf")
        elif "int" in hint:
            yield field.name, 4.0
