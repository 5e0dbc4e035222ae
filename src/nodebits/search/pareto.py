"""Points that no other beats in both accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def pareto_front(
    items: Iterable[T], cost: Callable[[T], float], accuracy: Callable[[T], float]
) -> list[T]:
    """Returns the items of no other's cost at most and accuracy at least, cheapest first."""
    front: list[T] = []
    for item in sorted(items, key=lambda i: (cost(i), -accuracy(i))):
        if not front or accuracy(item) > accuracy(front[-1]):
            front.append(item)
    return front
