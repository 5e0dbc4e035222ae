"""What a model holds beside its submodules: layers in plain attributes, lists and functions."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# Objects of these packages are not looked into.
_FOREIGN = ("torch", "torch_geometric", "builtins", "logging", "threading", "numpy", "weakref")
_REGISTERED = ("_modules", "_parameters", "_buffers")


class References:
    """Makes plain references to a layer lead to its successor.

    Args:
        new_of: Layers and their successors.
        found: Called with the place of every module that is reached so, and of every function.
    """

    def __init__(
        self,
        new_of: Mapping[nn.Module, nn.Module],
        found: Callable[[str, nn.Module | types.FunctionType], None] | None = None,
    ) -> None:
        self._new_of = new_of
        self._found = found
        self._seen: set[int] = set()

    def redirect(self, root: nn.Module) -> None:
        """Goes through all submodules of ``root``."""
        for path, module in root.named_modules():
            for name, value in list(vars(module).items()):
                if name not in _REGISTERED:
                    new = self._follow(value, f"{path}.{name}" if path else name)
                    if new is not value:
                        module.__dict__[name] = new

    def _report(self, where: str, what: nn.Module | types.FunctionType) -> None:
        if self._found is not None:
            self._found(where, what)

    def _follow(self, value: Any, where: str) -> Any:
        """``value``, or what takes its place; containers are changed in place where they can be."""
        if isinstance(value, nn.Module):
            self._report(where, value)
            return self._new_of.get(value, value)
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            self._report(where, value.__self__)
            new = self._new_of.get(value.__self__)
            return value if new is None else getattr(new, value.__func__.__name__)
        if isinstance(value, types.FunctionType):
            self._report(where, value)
            return value
        if id(value) in self._seen:
            return value
        self._seen.add(id(value))
        if isinstance(value, functools.partial):
            return self._partial(value, where)
        if isinstance(value, tuple):
            return self._tuple(value, where)
        self._enter(value, where)
        return value

    def _enter(self, value: Any, where: str) -> None:
        if isinstance(value, list):
            for i, item in enumerate(value):
                value[i] = self._follow(item, f"{where}[{i}]")
        elif isinstance(value, dict):
            for key, item in list(value.items()):
                new = self._follow(item, f"{where}[{key!r}]")
                if new is not item:
                    value[key] = new
        elif isinstance(value, set):
            for item in list(value):
                new = self._follow(item, where)
                if new is not item:
                    value.remove(item)
                    value.add(new)
        elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
            if type(value).__module__.partition(".")[0] in _FOREIGN:
                return
            for name, item in list(vars(value).items()):
                new = self._follow(item, f"{where}.{name}")
                if new is not item:
                    vars(value)[name] = new

    def _tuple(self, value: tuple[Any, ...], where: str) -> tuple[Any, ...]:
        items = [self._follow(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if all(new is item for new, item in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)

    def _partial(self, value: functools.partial[Any], where: str) -> functools.partial[Any]:
        parts = (value.func, *value.args, *value.keywords.values())
        items = [self._follow(part, where) for part in parts]
        if all(new is part for new, part in zip(items, parts, strict=True)):
            return value
        count = 1 + len(value.args)
        keywords = dict(zip(value.keywords, items[count:], strict=True))
        return functools.partial(items[0], *items[1:count], **keywords)


def captured_modules(function: types.FunctionType) -> list[nn.Module]:
    """Modules that a function keeps: in its closure, or as defaults of its arguments."""
    kept: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        kept.append(content.__self__ if isinstance(content, types.MethodType) else content)
    return [module for module in kept if isinstance(module, nn.Module)]
