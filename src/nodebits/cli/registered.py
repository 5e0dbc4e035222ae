"""Options of what is registered: of methods and of models, read without importing them."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from functools import reduce
from operator import or_
from pathlib import Path

from nodebits.core.options import Option, options_in
from nodebits.core.registry import METHODS
from nodebits.jobs.settings import QuantizeSettings

_ROOT = Path(__file__).resolve().parent.parent
_TAKEN = {field.name for field in fields(QuantizeSettings)} - {"overrides"}
# The data set, or an option of the job under a shorter name, says these.
_SPEC_TAKEN = {"name", "in_channels", "hidden_channels", "out_channels", "num_layers", "task"}


def method_options() -> list[Option]:
    """Fields of all methods' configs; those that several share are one option."""
    common = _of_class("methods/base.py", "QuantConfig")
    found = {o.name: replace(o, group="Bit widths") for o in common if o.name not in _TAKEN}
    own: dict[str, list[tuple[str, Option]]] = {}
    for entry in METHODS.list():
        for option in () if entry.definition is None else _class_options(entry.definition):
            if option.name not in found and option.name not in _TAKEN:
                own.setdefault(option.name, []).append((entry.name, option))
    for name, shared in own.items():
        found[name] = _merged(shared)
    # What is not given stays as the method has it.
    return [replace(option, default=None) for option in found.values()]


def model_options() -> list[Option]:
    """Fields of the description of a model that are no options of the job."""
    taken = _TAKEN | _SPEC_TAKEN
    found = [o for o in _of_class("models/spec.py", "ModelSpec") if o.name not in taken]
    return [replace(option, group="Architecture", default=None) for option in found]


def _merged(shared: list[tuple[str, Option]]) -> Option:
    """One option for fields of one name: what any of the methods takes is taken."""
    texts: dict[str, list[str]] = {}
    for method, option in shared:
        texts.setdefault(option.help, []).append(method)
    first = shared[0][1]
    return replace(
        first,
        hint=reduce(or_, (option.hint for _, option in shared)),
        constraints=tuple(c for _, option in shared for c in option.constraints),
        help=" ".join(f"{', '.join(methods)}: {text}" for text, methods in texts.items()),
        group="Method",
    )


def _class_options(definition: ast.ClassDef | ast.FunctionDef) -> list[Option]:
    return list(options_in(definition)) if isinstance(definition, ast.ClassDef) else []


def _of_class(file: str, name: str) -> list[Option]:
    body = ast.parse((_ROOT / file).read_text(encoding="utf-8")).body
    (found,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    return list(options_in(found))
