"""Values remembered by what they were made from: an adjacency, edge weights, features.

A version counter tells of edits that went through torch. It does not see those through ``.data``,
through memory that is shared with NumPy, under ``inference_mode``, or of the values of a sparse
matrix. So a value is given out again only if the content of its source is what it was, which a
digest of all its bytes tells. The digest costs less than what it saves, and is left out where the
library itself holds the source: for its own tensors, and while :func:`constant_inputs` is open.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from nodebits.core.context import Context, current, opened
from nodebits.ops.content import digest

T = TypeVar("T")
Content = tuple[tuple[int, torch.Size, torch.dtype], ...]


def constant_inputs() -> AbstractContextManager[Context]:
    """While open, the caller promises that inputs are edited through torch, or not at all.

    A training loop that owns its data opens it and saves a look at all features in every epoch.
    What is remembered inside is not trusted outside.
    """
    return opened(constant=current().constant or object())


def parts_of(source: Any) -> tuple[Tensor, ...]:
    """The tensors that hold the content of an adjacency, or of a tensor."""
    if not isinstance(source, Tensor):
        return tuple(part for part in source.csr() if part is not None)
    if source.layout == torch.sparse_coo:
        return source._indices(), source._values()
    if source.layout == torch.sparse_csr:
        return source.crow_indices(), source.col_indices(), source.values()
    if source.layout == torch.sparse_csc:
        return source.ccol_indices(), source.row_indices(), source.values()
    return (source.as_subclass(Tensor),)


class Seen(NamedTuple):
    """A source as it was."""

    version: int  # -1 without a counter
    content: Content | None  # None where nobody looked
    scope: object  # in which the version alone is trusted, None for none


# A scope without end: nobody but the library writes to the source.
_OWNED = object()


def _version(source: Any) -> int:
    counted = isinstance(source, Tensor) and not source.is_inference()
    return source._version if counted else -1


def _content(source: Any) -> Content:
    return tuple((digest(part), part.shape, part.dtype) for part in parts_of(source))


def _scope(source: Any, owned: bool) -> object:
    """Where the version of ``source`` tells of every edit; None where it does not."""
    if not isinstance(source, Tensor) or source.layout != torch.strided or source.is_inference():
        return None
    return _OWNED if owned else current().constant


class Entry(NamedTuple):
    """A value, and what it was made from."""

    source: weakref.ref[Any]
    seen: Seen
    value: Any


class Memo:
    """The values made from the last few sources; safe to use from several threads.

    A value is forgotten with its source, and never copied or pickled.

    Args:
        limit: Most values that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Re-entrant: a source may die, and tell so, while this thread holds it.
        self._lock = threading.RLock()
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return Memo, (self._limit,)

    def values(self) -> list[Entry]:
        """What is kept."""
        with self._lock:
            return list(self._entries.values())

    def recall(self, source: Any, key: Hashable, make: Callable[[], T], owned: bool = False) -> T:
        """The value that was made for ``source`` and ``key``, or what ``make`` returns.

        Args:
            source: What ``make`` reads; by identity.
            key: What else it depends on.
            make: Makes the value, which must not hold ``source``.
            owned: Whether only the library writes to ``source``.
        """
        known = self.get(source, key, owned)
        if known is not None:
            return known  # type: ignore[no-any-return]
        seen = self._look(source, owned)
        value = make()
        self._keep(source, key, seen, value)
        return value

    def get(self, source: Any, key: Hashable, owned: bool = False) -> Any:
        """The value that is kept for ``source`` and ``key`` if the source is unchanged, or None."""
        if torch.compiler.is_compiling():
            return None
        place = id(source), key
        with self._lock:
            entry = self._entries.get(place)
            if entry is None or entry.source() is not source:
                return None
        same = entry.seen.version == _version(source)
        scope = _scope(source, owned)
        if same and (scope is None or scope is not entry.seen.scope):
            same = entry.seen.content is not None and entry.seen.content == _content(source)
        with self._lock:
            if not same:
                self._entries.pop(place, None)
                return None
            if place in self._entries:
                self._entries.move_to_end(place)
        return entry.value

    def put(self, source: Any, key: Hashable, value: Any, owned: bool = False) -> None:
        """Keeps ``value``, which was made from ``source`` as it is now."""
        self._keep(source, key, self._look(source, owned), value)

    def forget(self) -> None:
        """Drops all values."""
        with self._lock:
            self._entries.clear()

    def _look(self, source: Any, owned: bool) -> Seen | None:
        if torch.compiler.is_compiling():
            return None
        scope = _scope(source, owned)
        return Seen(_version(source), _content(source) if scope is None else None, scope)

    def _keep(self, source: Any, key: Hashable, seen: Seen | None, value: Any) -> None:
        if seen is None:
            return
        place = id(source), key
        mine = weakref.ref(self)

        def forget(dead: weakref.ref[Any]) -> None:
            memo = mine()
            if memo is not None:
                memo._forget(place, dead)

        try:
            entry = Entry(weakref.ref(source, forget), seen, value)
        except TypeError:  # not weakly referenceable: made every time
            return
        with self._lock:
            self._entries[place] = entry
            self._entries.move_to_end(place)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def _forget(self, place: Hashable, dead: weakref.ref[Any]) -> None:
        with self._lock:
            entry = self._entries.get(place)
            if entry is not None and entry.source is dead:
                del self._entries[place]
