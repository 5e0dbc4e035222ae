"""What was found out about tensors, kept for as long as they live and torch counts no change."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from torch import Tensor

# What is known of a row pointer: how many edges its rows have in all.
EDGES_OF_POINTER = "edges of the pointer"
# What is known of indices that nobody looked at: a number that all are below.
INDICES_BELOW = "indices below"

_State = tuple[int, int, int]


class _Fact(NamedTuple):
    tensors: tuple[weakref.ref[Tensor], ...]
    states: tuple[_State, ...]
    value: Any


_facts: dict[tuple[str, tuple[int, ...]], _Fact] = {}  # by what was asked, of which identities


def _state_of(t: Tensor) -> _State | None:
    """What changes when torch writes to ``t``; None where torch does not count (inference mode)."""
    return None if t.is_inference() else (t._version, t.data_ptr(), t.numel())


def recall(what: str, *tensors: Tensor) -> Any:
    """What :func:`remember` was told of these very tensors; None where one was written to since."""
    fact = _facts.get((what, tuple(map(id, tensors))))
    if fact is None:
        return None
    for reference, state, t in zip(fact.tensors, fact.states, tensors, strict=True):
        if reference() is not t or state != _state_of(t):
            return None
    return fact.value


def remember(what: str, value: Any, *tensors: Tensor) -> None:
    """Keeps a value, other than None, that follows from the contents of tensors.

    Memory that others write to behind torch's back (through numpy, or ``.data``) is beyond this.
    """
    states = tuple(state for t in tensors if (state := _state_of(t)) is not None)
    if len(states) != len(tensors):
        return
    key = what, tuple(map(id, tensors))

    def forget(_: Any) -> None:
        _facts.pop(key, None)

    _facts[key] = _Fact(tuple(weakref.ref(t, forget) for t in tensors), states, value)
