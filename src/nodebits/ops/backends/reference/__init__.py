"""The definitions themselves, on any device: what every other backend must equal bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any

from nodebits.ops.operator import LIBRARY, OPERATORS


def _meaning(checked: Any) -> Any:
    return checked.compute()


def register() -> None:
    """Makes the definitions the operators of every device without a backend of its own."""
    for op in OPERATORS.values():
        LIBRARY.impl(op.name, partial(op.run, _meaning), "CompositeExplicitAutograd")


def describe() -> dict[str, str]:
    """What runs where no other backend does."""
    return {"other devices": "the definitions, in torch"}


def serves() -> dict[str, dict[str, str]]:
    """What serves each operator there."""
    return {"other devices": dict.fromkeys(OPERATORS, "definition")}
