"""The definitions themselves, on any device: what every other backend must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodebits.ops.operator import LIBRARY, OPERATORS, Operator


def _implementation(op: Operator[..., Any]) -> Callable[..., Any]:
    def run(*flat: Any) -> Any:
        return op.run(flat, lambda checked: op.reference(*checked))

    return run


def register() -> None:
    """Makes the definitions the operators of every device without a backend of its own."""
    for op in OPERATORS.values():
        LIBRARY.impl(op.name, _implementation(op), "CompositeExplicitAutograd")
