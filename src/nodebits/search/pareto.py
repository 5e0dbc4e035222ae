"""Points that no other beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def pareto_front(
    items: Iterable[T], cost: Callable[[T], float], quality: Callable[[T], Any]
) -> list[T]:
    """Returns the items of no other's cost at most and quality at least, cheapest first.

    Args:
        items: What to choose from.
        cost: Less is better.
        quality: More is better; a number, or a tuple whose later entries break ties.
    """
    front: list[T] = []
    for item in sorted(sorted(items, key=quality, reverse=True), key=cost):
        if not front or quality(item) > quality(front[-1]):
            front.append(item)
    return front
