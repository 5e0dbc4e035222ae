"""The TOML file that stands in for options: its values are checked by type, never converted."""

from __future__ import annotations

import inspect
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Union

import typer

from nodebits.core.errors import ConfigError, did_you_mean
from nodebits.core.fields import check_value


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command, so that the command line wins.

    Raises:
        BadParameter: The file cannot be read, has a key that the command does not know, or a value
            of another type than its option.
    """
    if path is None:
        return None
    known = {
        str(parameter.name): parameter
        for parameter in context.command.params
        if parameter.name not in ("config", "help", None)
    }
    callback = context.command.callback
    hints = _hints(callback)
    lists: frozenset[str] = getattr(callback, "comma_lists", frozenset())
    defaults: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = key.replace("-", "_")
        if name not in known:
            names = [option.replace("_", "-") for option in known]
            raise typer.BadParameter(
                f"{path}: unknown key {key!r}{did_you_mean(key, names)} Known: {', '.join(names)}"
            )
        if name in defaults:
            raise typer.BadParameter(f"{path}: {key!r} is given twice, with '-' and with '_'")
        repeated = bool(getattr(known[name], "multiple", False))
        try:
            check_value(key, value, _file_hint(name, hints.get(name, str), repeated, name in lists))
        except ConfigError as error:
            raise typer.BadParameter(f"{path}: {error}") from error
        if isinstance(value, dict):
            # A table stands for a repeated NAME=VALUE option; a list in it for commas.
            defaults[name] = [f"{k}={_text(v)}" for k, v in value.items()]
        else:
            # As text, a value passes the same checks as on the command line.
            defaults[name] = value if isinstance(value, bool) else _text(value)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise typer.BadParameter(f"{path} is not TOML for us: it is nested too deep") from error
    except ValueError as error:  # of TOML, of its encoding, of a number of too many digits
        raise typer.BadParameter(f"{path} is not TOML: {error}") from error


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@cache
def _hints(command: Callable[..., Any] | None) -> dict[str, Any]:
    """Types of the options of a command, as its function states them."""
    return {} if command is None else typing.get_type_hints(inspect.unwrap(command))


def _file_hint(name: str, hint: Any, repeated: bool, listed: bool) -> Any:
    """The type that a value has in a file: options that are no number or switch are strings."""
    if repeated:
        return dict[str, int | list[int]]
    if name == "split":
        return str | int
    if listed:
        return str | int | list[int] | list[str]
    parts = (
        typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    )
    return next((part for part in parts if part in (bool, int, float)), str)
