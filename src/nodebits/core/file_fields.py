"""Values that come from a file: each is compared with what its class says it may be.

A class that is rebuilt from JSON declares its options once, by name; a number beyond the bounds, a
wrong type, a missing or an unknown key is a :class:`FileFormatError` with the path of the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nodebits.core.errors import FileFormatError

# Sizes of tensors: indices are int32, so nothing that a model holds is longer along one axis.
MOST = 2**31 - 1
# A step is a loop over the graph: a file cannot ask for one that does not end.
MOST_STEPS = 10_000


class Field(Protocol):
    """What a value may be."""

    def fault(self, value: Any) -> str | None:
        """What it should have been, or None where it is."""
        ...


@dataclass(frozen=True)
class Integer:
    """An integer in ``[low, high]``; true is not 1."""

    low: int = 0
    high: int = MOST

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        good = isinstance(value, int) and not isinstance(value, bool)
        if good and self.low <= value <= self.high:
            return None
        return f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True)
class Number:
    """A finite number in ``[low, high]``."""

    low: float = -math.inf
    high: float = math.inf

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        good = isinstance(value, int | float) and not isinstance(value, bool)
        # An integer too large for a float is no number of ours; its comparison is exact.
        if good and abs(value) < 2**128 and self.low <= value <= self.high:
            return None
        return f"a finite number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        return None if isinstance(value, bool) else "true or false"


@dataclass(frozen=True)
class Text:
    """A string."""

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        return None if isinstance(value, str) else "a string"


@dataclass(frozen=True)
class Object:
    """A JSON object with any keys, whose values are fields of one kind, or anything."""

    entry: Field | None = None

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        if not isinstance(value, dict):
            return "an object"
        faults = () if self.entry is None else map(self.entry.fault, value.values())
        return next((f"an object, each value of it {fault}" for fault in faults if fault), None)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[Any, ...]

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        if any(type(value) is type(option) and value == option for option in self.options):
            return None
        return "one of " + ", ".join(map(repr, self.options))


@dataclass(frozen=True)
class ListOf:
    """A list whose entries are fields of one kind; ``length`` None for any."""

    entry: Field
    length: int | None = None

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        if not isinstance(value, list) or self.length not in (None, len(value)):
            return "a list" + ("" if self.length is None else f" of {self.length}")
        faults = (self.entry.fault(part) for part in value)
        return next((f"a list, each of it {fault}" for fault in faults if fault), None)


@dataclass(frozen=True)
class Table:
    """An object with just these keys."""

    fields: Mapping[str, Field]

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        if not isinstance(value, dict):
            return "an object"
        if value.keys() != self.fields.keys():
            return "an object with the keys " + ", ".join(self.fields)
        for key, field in self.fields.items():
            fault = field.fault(value[key])
            if fault:
                return f"an object whose {key} is {fault}"
        return None


@dataclass(frozen=True)
class Optional:
    """A field that may be null; or, with ``absent``, that older files do not have."""

    field: Field
    absent: bool = False

    def fault(self, value: Any) -> str | None:
        """What the value should have been, or None where it is."""
        if value is None and not self.absent:
            return None
        fault = self.field.fault(value)
        return fault and (fault if self.absent else f"null or {fault}")


BITS = Integer(1, 8)
SIZE = Integer()
STEPS = Integer(1, MOST_STEPS)
FLAG = Flag()
Options = Mapping[str, Field]


def check_object(value: Any, where: str) -> dict[str, Any]:
    """Returns ``value`` if it is a JSON object.

    Raises:
        FileFormatError: Otherwise.
    """
    if not isinstance(value, dict):
        raise FileFormatError(f"{where} is {shown(value)}: it must be an object")
    return value


def check_fields(value: Any, options: Options, where: str, *, others: bool = False) -> None:
    """Checks a JSON object against the fields that it should have.

    Args:
        value: The object.
        options: Its fields.
        where: Its path in the file, for messages.
        others: Whether it may have more.

    Raises:
        FileFormatError: Names the field, its value and what it must be.
    """
    entries = check_object(value, where)
    for key in entries:
        if key not in options and not others:
            raise FileFormatError(f"{where} has an unknown field {shown(key)}")
    for key, field in options.items():
        if key not in entries:
            if isinstance(field, Optional) and field.absent:
                continue
            raise FileFormatError(f"{where} lacks the field {key!r}")
        fault = field.fault(entries[key])
        if fault:
            raise FileFormatError(f"{where}.{key} is {shown(entries[key])}: it must be {fault}")


def shown(value: Any) -> str:
    """``repr`` of a value, short whatever it is."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict | list) and len(value) > 3:
        return f"a {type(value).__name__} of {len(value)} entries"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
