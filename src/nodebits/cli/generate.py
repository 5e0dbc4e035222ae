"""Commands made from settings: options, types, limits, defaults and help are the fields' own."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.core.options import Constraint, Option, options_of

# Options that several commands spell alike, with checks of their own; the rest is generated.
_SPELLED: dict[str, Any] = {
    "out": options.Out,
    "dataset": options.Dataset,
    "data": options.Data,
    "allow": options.Allow,
    "data_root": options.DataRoot,
    "cache": options.Cache,
    "split": options.Split,
    "task": options.Task,
    "use_node_attr": options.UseNodeAttr,
    "model": options.Model,
    "method": options.Method,
    "threads": options.Threads,
    "force": options.Force,
    "overrides": options.Override,
}
_COMMON: dict[str, tuple[Any, Any]] = {
    "config": (options.ConfigFile, None),
    "json": (options.Json, False),
    "debug": (options.Debug, False),
}
_FLAGS = {"overrides": "override"}


def command(
    run: Callable[..., int],
    settings: type,
    more: Iterable[Option] = (),
    leave_out: Iterable[str] = (),
    negations: dict[str, str] | None = None,
    spelled: dict[str, Any] | None = None,
) -> Callable[..., int]:
    """Returns a function that typer makes a command of.

    Args:
        run: Called as ``run(context, json, values)``; its docstring is the command's help.
            Settings with a ``json`` of their own take its place.
        settings: Class of settings.
        more: Options besides, as of methods; a name of ``settings`` is left as it is there.
        leave_out: Fields that are no options.
        negations: Names of the switches that turn a field off, where ``--no-...`` says less.
        spelled: Options of this command alone that are not generated, None for one that is.
    """
    left_out, negations = set(leave_out), negations or {}
    spelling = {**_SPELLED, **(spelled or {})}
    chosen = {o.name: o for o in options_of(settings) if o.name not in left_out}
    chosen = {o.name: o for o in more if o.name not in chosen} | chosen
    # What must be given comes first.
    ordered = sorted(chosen.values(), key=lambda o: o.default is not inspect.Parameter.empty)

    common = {name: given for name, given in _COMMON.items() if name not in chosen}
    lists = {n: o for n, o in chosen.items() if _is_list(o.hint) and n != "overrides"}

    def invoke(context: typer.Context, **values: Any) -> int:
        shared = {name: values.pop(name) for name in common}
        for name in lists.keys() & values.keys():
            if values[name] is not None:
                read = options.names if _holds(lists[name].hint, str) else options.integers
                values[name] = read(values[name], f"--{name.replace('_', '-')}")
        given = {_field_of(name): value for name, value in values.items()}
        return run(context, shared.get("json", False), given)

    annotations: dict[str, Any] = {"context": typer.Context}
    defaults: dict[str, Any] = {"context": inspect.Parameter.empty}
    for option in ordered:
        name = _FLAGS.get(option.name, option.name)
        annotations[name] = spelling.get(option.name) or _annotated(option, negations)
        defaults[name] = _default(option)
    for name, (annotation, default) in common.items():
        annotations[name], defaults[name] = annotation, default
    kinds = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kinds, default=defaults[name], annotation=annotation)
        for name, annotation in annotations.items()
    ]
    invoke.__annotations__ = {**annotations, "return": int}
    invoke.__doc__ = run.__doc__
    invoke.__name__ = run.__name__
    described = typing.cast(Any, invoke)
    described.__signature__ = inspect.Signature(parameters, return_annotation=int)
    described.comma_lists = frozenset(n for n, o in chosen.items() if _is_list(o.hint))
    return invoke


def _field_of(name: str) -> str:
    return next((field for field, flag in _FLAGS.items() if flag == name), name)


def _default(option: Option) -> Any:
    if option.name == "overrides":
        return None
    if isinstance(option.default, tuple):
        return ",".join(map(str, option.default)) or None
    return option.default


def _annotated(option: Option, negations: dict[str, str]) -> Any:
    kind = _kind(option.hint)
    flag = f"--{option.name.replace('_', '-')}"
    if kind is bool and option.default is not False:
        flag = f"{flag}/{negations.get(option.name, '--no-' + flag[2:])}"
    return Annotated[
        kind if option.default is inspect.Parameter.empty else kind | None,
        typer.Option(
            flag,
            help=option.help,
            rich_help_panel=option.group,
            callback=_check(option.constraints, kind),
        ),
    ]


def _check(constraints: tuple[Constraint, ...], kind: type) -> Callable[[Any], Any]:
    """Refuses what no constraint lets through, before anything slow is imported."""

    def check(value: Any) -> Any:
        if value is None:
            return value
        if kind is float and not math.isfinite(value):
            raise typer.BadParameter(f"it must be a finite number; got {value}")
        # Several methods may have an option of one name: what one of them takes is good here.
        for group in {type(c) for c in constraints}:
            faults = [c.fault(value) for c in constraints if type(c) is group]
            if faults and all(faults):
                raise typer.BadParameter(f"it {' or '.join(dict.fromkeys(faults))}; got {value}")
        return value

    return check


def _is_list(hint: Any) -> bool:
    parts = typing.get_args(hint) or ()
    return any(typing.get_origin(part) is tuple for part in (hint, *parts))


def _holds(hint: Any, kind: type) -> bool:
    """Whether a hint of a list, or one of its parts, is of values of a type."""
    return any(kind in typing.get_args(part) for part in (hint, *typing.get_args(hint)))


def _kind(hint: Any) -> type:
    """The type that the command line reads: a number, switch or path, else text."""
    parts = typing.get_args(hint) if typing.get_origin(hint) is not tuple else ()
    plain = [part for part in (parts or (hint,)) if part is not type(None)]
    return next((part for part in plain if part in (bool, int, float, Path)), str)
