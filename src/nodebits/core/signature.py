"""What functions call their arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def names_of(function: Callable[..., Any]) -> Sequence[str]:
    """Names of the arguments that ``function`` takes by position."""
    if inspect.ismethod(function):
        return _names(function.__func__)[1:]
    return _names(function)


# Asked in every forward, where reading a signature takes as long as a small kernel.
@functools.lru_cache(maxsize=256)
def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind in kinds)
