"""What a field of settings says of itself: type, limits, default and one line of help.

Settings are dataclasses. A field's annotation holds its limits (``Annotated[int, Range(1)]``), and
the ``Attributes`` of its class's docstring are its help. Checks, commands and their help read them,
also from source that was not imported.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Union


@dataclass(frozen=True)
class Range:
    """Limits of a number, both of them allowed but ``below``, which is not."""

    least: float | None = None
    most: float | None = None
    below: float | None = None

    def fault(self, value: Any) -> str:
        """Returns what the value must be, or an empty string where it is that."""
        fits = (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )
        limits = {"at least": self.least, "at most": self.most, "below": self.below}
        words = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
        if self.least is not None and self.most is not None:
            words = [f"from {self.least:g} to {self.most:g}"]
        return "" if fits else f"must be {' and '.join(words)}"


class Choices:
    """Names that a text may be."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def fault(self, value: Any) -> str:
        """Returns what the value must be, or an empty string where it is that."""
        return "" if value in self.names else f"must be one of {', '.join(self.names)}"


class WidthOrFloat:
    """A bitwidth, or 32 for float."""

    def fault(self, value: Any) -> str:
        """Returns what the value must be, or an empty string where it is that."""
        return "" if 1 <= value <= 8 or value == 32 else "must be a width from 1 to 8, or 32"


Constraint = Range | Choices | WidthOrFloat
Count = Annotated[int, Range(1)]
Amount = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Probability = Annotated[float, Range(0, below=1)]
Width = Annotated[int, Range(1, 8)]
SiteWidth = Annotated[int, WidthOrFloat()]


@dataclass(frozen=True)
class Option:
    """One field.

    Attributes:
        name: Of the field.
        hint: Its type, without constraints.
        constraints: Limits of it.
        default: Its value where none is given; ``inspect.Parameter.empty`` where it must be.
        help: First sentence of its documentation.
        group: First line of the docstring of the class that declares it.
    """

    name: str
    hint: Any
    constraints: tuple[Constraint, ...]
    default: Any
    help: str
    group: str


def plain(hint: Any) -> tuple[Any, tuple[Constraint, ...]]:
    """Splits a type into itself and the constraints in it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, found = plain(arguments[0])
        return inner, (*found, *(a for a in arguments[1:] if isinstance(a, Constraint)))
    if origin in (Union, types.UnionType):
        parts = [plain(argument) for argument in arguments]
        return reduce(or_, (p for p, _ in parts)), tuple(c for _, found in parts for c in found)
    return hint, ()


def options_of(settings: type) -> list[Option]:
    """The fields of a class of settings, those of its bases first.

    Help and group are of the class that documents a field, which one that changes its default
    need not do again.
    """
    hints = typing.get_type_hints(settings, include_extras=True)
    owners = {
        name: base
        for base in reversed(settings.__mro__)
        for name in documented(inspect.getdoc(base) or "")
        if name in vars(base).get("__annotations__", {})
    }
    found = []
    for field in dataclasses.fields(settings):
        owner = owners.get(field.name, settings)
        doc = inspect.getdoc(owner) or ""
        default = field.default
        if default is dataclasses.MISSING:
            made = field.default_factory
            default = inspect.Parameter.empty if made is dataclasses.MISSING else made()
        hint, constraints = plain(hints[field.name])
        text = documented(doc).get(field.name, "")
        found.append(
            Option(field.name, hint, constraints, default, text, doc.partition("\n")[0].rstrip("."))
        )
    return found


# What annotations of settings are made of; a field of any other type is no option.
_NAMES: Mapping[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, str, bool, tuple, list, dict, Path)},
    **{kind.__name__: kind for kind in (Range, Choices)},
    "Annotated": Annotated,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Count": Count,
    "Amount": Amount,
    "Share": Share,
    "Probability": Probability,
    "Width": Width,
    "SiteWidth": SiteWidth,
}


def options_in(definition: ast.ClassDef) -> Iterator[Option]:
    """The fields that a class declares itself, read from its source.

    Fields whose type or default says nothing outside of their module are left out.
    """
    doc = ast.get_docstring(definition) or ""
    texts = documented(doc)
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        try:
            hint = eval(compile(ast.Expression(node.annotation), "", "eval"), {}, dict(_NAMES))
        except NameError:
            continue
        name, default = node.target.id, node.value
        try:
            value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        except ValueError:
            value = None
        kind, constraints = plain(hint)
        yield Option(name, kind, constraints, value, texts.get(name, ""), doc.partition("\n")[0])


def documented(doc: str) -> dict[str, str]:
    """First sentence on every attribute in a docstring, without its markup."""
    _, found, section = doc.partition("Attributes:\n")
    if not found:
        return {}
    section = re.split(r"\n\S", section)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: _sentence(" ".join(text.split())) for name, text in entries}


def _sentence(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "").replace('"', "")
    return re.split(r"(?<=[a-z0-9)])[.;] ", text)[0].rstrip(".") + "."
