"""Types of the fields of settings: a value of another type is refused, never converted.

Python would take ``True`` for 1 and ``"4"`` for a width that fails much later.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from nodebits.core.errors import ConfigError
from nodebits.core.options import plain


def check_fields(settings: Any) -> None:
    """Checks every field of a dataclass against its annotation.

    A whole number is good for a float, ``bool`` is no number, and floats must be finite. Limits in
    an annotation (:mod:`nodebits.core.options`) are checked too. Types other than numbers, strings,
    paths, literals, and containers of them are checked by class.

    Args:
        settings: An instance of a dataclass.

    Raises:
        ConfigError: Names the field, the value and what was expected.
    """
    hints = _hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        hint, constraints = plain(hints.get(field.name, Any))
        check_value(field.name, value, hint)
        for constraint in constraints:
            fault = "" if value is None else constraint.fault(value)
            if fault:
                raise ConfigError(f"{field.name} {fault}, got {value!r}")


def check_value(name: str, value: Any, hint: Any) -> None:
    """Checks one value; see :func:`check_fields`.

    Args:
        name: For the message.
        value: What was given.
        hint: A type, as in an annotation.

    Raises:
        ConfigError: If ``value`` is not of that type.
    """
    if not _fits(value, hint):
        raise ConfigError(
            f"{name} is {value!r} ({type(value).__name__}): expected {_describe(hint)}"
        )


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:
        return {}  # an annotation that names something local to a function says nothing here


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not isfinite: an integer too large for a float is no float, and no error of ours either.
        return number and abs(value) <= sys.float_info.max
    if hint is Path:
        return isinstance(value, os.PathLike)
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin) and _parts_fit(value, origin, arguments)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _parts_fit(value: Any, origin: type, arguments: tuple[Any, ...]) -> bool:
    """Whether what a container holds has the right types."""
    if not arguments:
        return True
    if issubclass(origin, Mapping):
        key, item = arguments
        return all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if issubclass(origin, tuple) and arguments[-1] is not Ellipsis:
        pairs = zip(value, arguments, strict=False)
        return len(value) == len(arguments) and all(_fits(v, hint) for v, hint in pairs)
    if issubclass(origin, Sequence):
        # A string is a sequence of strings, which no setting means.
        return not isinstance(value, str) and all(_fits(v, arguments[0]) for v in value)
    return True


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
    Any: "anything",
}


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _NAMES:
        return _NAMES[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is not None and isinstance(origin, type):
        inner = [_describe(argument) for argument in arguments if argument is not Ellipsis]
        if issubclass(origin, Mapping):
            return f"a mapping of {' to '.join(inner)}"
        return f"a sequence of {inner[0]}" if inner else "a sequence"
    return getattr(hint, "__name__", str(hint))
