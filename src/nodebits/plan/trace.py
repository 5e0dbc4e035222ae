"""One recorded forward: values by number, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Ref(NamedTuple):
    """A value of a trace, by number."""

    value: int


class TextArgument(NamedTuple):
    """A text among the arguments of a step."""

    text: str


class Sized(NamedTuple):
    """A number among the arguments of a step that was computed from sizes.

    Attributes:
        value: The number.
        terms: Numbers and names of operators, operands first.
    """

    value: int
    terms: tuple[int | float | str, ...]


def sum_of(sizes: Iterable[tuple[int | float | str, ...]]) -> tuple[int | float | str, ...]:
    """How a sum of numbers is computed, each of which is given as its terms."""
    terms: tuple[int | float | str, ...] = ()
    for size in sizes:
        terms = (*terms, *size, "add") if terms else size
    return terms or (0,)


@dataclass
class Step:
    """A step.

    Attributes:
        op: Its name.
        args: :class:`Ref`, numbers, :class:`Sized`, :class:`TextArgument`, None, or lists of these;
            tensors that are no value of the trace are constants.
        outs: Numbers of its results.
        approx: Whether other libraries round it otherwise.
        path: Of the innermost module that was running.
        exact: Whether a part of an axis ends where it says, however long the axis is.
    """

    op: str
    args: list[Any]
    outs: list[int]
    approx: bool = False
    path: str = field(default="", compare=False)
    exact: bool = False


class Read(NamedTuple):
    """An integer that the forward read from a value."""

    value: int
    number: int


@dataclass
class Trace:
    """A recorded forward.

    Attributes:
        steps: In order.
        shapes: Of every value.
        dtypes: Likewise, torch's.
        inputs: Numbers of the inputs by name.
        reads: Integers that were read.
        result: What the module returned, with :class:`Ref` in place of values.
    """

    steps: list[Step] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[Any] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    result: Any = None

    def value(self, t: Tensor) -> int:
        """A number for one more value."""
        self.shapes.append(tuple(t.shape))
        self.dtypes.append(t.dtype)
        return len(self.shapes) - 1


# Types of most leaves, which need not be asked what else they are.
_LEAVES = frozenset((Tensor, bool, int, float, str, type(None)))


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with ``change`` of all that is no list, tuple or dictionary in it."""
    if type(value) in _LEAVES:
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    if isinstance(value, Ref | TextArgument | Sized):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[mapped(part, change) for part in value])
    if isinstance(value, list | tuple):
        return type(value)([mapped(part, change) for part in value])
    return change(value)


def leaves(value: Any) -> list[Any]:
    """All that is no list, tuple or dictionary in ``value``."""
    found: list[Any] = []
    mapped(value, found.append)
    return found
