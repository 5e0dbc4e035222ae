"""What tells whether a model is still the one that a plan was made of.

Seen are attributes of modules, hooks, attributes of the classes of users, what modules hold in
lists, dictionaries, sets and objects of users, and tensors. Python sees every change of these but
those of a tensor's values through ``.data`` or NumPy: of small tensors copies are compared.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nodebits.ops.backends.cpu import kernels as backend
from nodebits.plan.recording import global_hooks

# Bytes of a tensor, and of all of them, up to which a copy is compared in every call.
_SMALL, _ALL = 4 << 10, 64 << 10
# How deep containers within containers are looked at, how many of them, and how long ones.
_DEEP, _MOST, _LONG = 4, 256, 512
# What every module has: what of it a forward looks at is a few of its dictionaries.
_OF_MODULES = frozenset(vars(nn.Module()))
_OF_FORWARD = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")
# Whose classes and objects nobody changes behind a model: they are many.
_LIBRARIES = frozenset(
    ("nodebits", "torch", "torch_geometric", "torch_sparse", "numpy", "scipy")
) | (sys.stdlib_module_names - {"__main__", "types", "argparse"})


class Guard:
    """Tells whether a model is what it is now.

    Attributes:
        same: Whether nothing was put in place of anything.
    """

    same: Callable[[], bool]

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._look(module)

    def _look(self, module: nn.Module) -> None:
        held = _Held(global_hooks())
        for part in module.modules():
            held.add_module(part)
        self._held = backend.guard(held.dictionaries, held.lists, held.sets, held.counted())
        self.same = self._held.same

    def holds(self) -> bool:
        """Whether the model is what it was, also where copies stand in place of containers.

        ``torch.export`` leaves such in a module when it is done.
        """
        if self.same():
            return True
        module, replaced = self._module(), self._held.replaced()
        if module is None or replaced is None or not all(_alike(*pair) for pair in replaced):
            return False
        self._look(module)
        return True


def _alike(before: Any, now: Any) -> bool:
    """Whether one stands for the other: containers by what is in them."""
    if before is now:
        return True
    if type(before) is not type(now):
        return False
    if isinstance(before, dict):
        return list(before) == list(now) and all(_alike(before[key], now[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(before) == len(now) and all(map(_alike, before, now))
    plain = isinstance(before, set | frozenset | int | float | str | bytes)
    return plain and bool(before == now)


class _Held:
    """What a model holds."""

    def __init__(self, hooks: list[dict[int, Any]]) -> None:
        self.dictionaries: list[dict[Any, Any]] = list(hooks)
        self.lists: list[list[Any]] = []
        self.sets: list[set[Any]] = []
        self._tensors: dict[int, Tensor] = {}
        self._known: set[int] = set()
        self._classes: set[type] = set()
        self._deep = 0

    def add_module(self, module: nn.Module) -> None:
        """A module without those in it."""
        self.add_class(type(module))
        self.dictionaries.append(vars(module))
        self.dictionaries += [vars(module)[name] for name in _OF_FORWARD]
        for t in (*module._parameters.values(), *module._buffers.values()):
            if t is not None:
                self._tensors[id(t)] = t
        for name, value in vars(module).items():
            if name not in _OF_MODULES:
                self.add(value, 0)

    def add_class(self, kind: type) -> None:
        """Attributes of a class, and of what it is derived from."""
        for one in kind.__mro__:
            if one not in self._classes and not _is_of_library(one):
                self._classes.add(one)
                # The dictionary itself: a class shows a view of it.
                self.dictionaries += [d for d in gc.get_referents(vars(one)) if isinstance(d, dict)]
                for value in vars(one).values():
                    self.add(value, 0)

    def add(self, value: Any, depth: int) -> None:
        """An object, and what is in it."""
        if isinstance(value, Tensor):
            self._tensors.setdefault(id(value), value)
        if type(value) is np.ndarray and value.flags.writeable and value.dtype.kind in "fiub":
            shared = _shared(value)
            self._tensors[id(shared)] = shared
        if isinstance(value, Tensor | nn.Module | np.ndarray) or id(value) in self._known:
            return
        parts: Any = ()
        if self._deep >= _MOST or _length(value) > _LONG:
            return
        if isinstance(value, dict):
            self.dictionaries.append(value)
            parts = value.values()
        elif isinstance(value, list):
            self.lists.append(value)
            parts = value
        elif isinstance(value, set):
            self.sets.append(value)
        elif isinstance(value, tuple | frozenset):
            parts = value
        elif isinstance(getattr(value, "__dict__", None), dict) and not _is_of_library(type(value)):
            self.add_class(type(value))
            self.dictionaries.append(vars(value))
            parts = vars(value).values()
        else:
            return
        self._known.add(id(value))
        self._deep += depth > 0
        if depth < _DEEP:
            for part in parts:
                self.add(part, depth + 1)

    def counted(self) -> list[tuple[Tensor, bool, int]]:
        """Tensors, whether torch counts their changes, and of how many bytes a copy is compared.

        Those without an address have -1.
        """
        found, left = [], _ALL
        for t in sorted(self._tensors.values(), key=_bytes):
            size = _bytes(t)
            kept = size if size <= min(_SMALL, left) else 0
            left -= max(kept, 0)
            found.append((t, not t.is_inference(), kept))
        return found


def _is_of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _LIBRARIES


def _length(value: Any) -> int:
    return len(value) if isinstance(value, dict | list | set | tuple | frozenset) else 0


def _bytes(t: Tensor) -> int:
    """How many bytes lie at the address of a tensor, 0 where they are not one after another.

    Below zero for one that has no address here.
    """
    if t.layout is not torch.strided or t.device.type != "cpu" or nn.parameter.is_lazy(t):
        return -1
    return t.numel() * t.element_size() if t.is_contiguous() else 0


def _shared(array: Any) -> Tensor:
    """A tensor in the memory of an array."""
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # of a type, or with strides, that torch has not
        return torch.empty(0, device="cpu")
