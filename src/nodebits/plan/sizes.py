"""Sizes that a forward looks at: a way that depends on one is a step, which expects it.

While a forward is recorded, code that is not ours gets sizes of tensors as numbers that remember
what they were computed from. A comparison of one is noted with its outcome; a plan whose sizes
give another outcome goes another way, and is left. What makes a plain number of a size
(``int(n)``, ``len(x)``, ``math.sqrt(n)``) is noted too: it must be the same for data of any size.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from nodebits.core.context import current

# By the name that a plan has for them.
OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
OTHER_WAY = "the model's forward goes another way for data of these sizes"
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod")
_COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
_OURS = ("nodebits.", "torch.")
# Where torch's own methods of tensors are written in Python: who called them asks.
_BETWEEN = ("torch._tensor", "torch.overrides")

Term = int | float | str


def computed(terms: Sequence[Any]) -> Any:
    """What numbers give with operators after their operands; None where one divides by zero."""
    stack: list[Any] = []
    for term in terms:
        if not isinstance(term, str):
            stack.append(term)
            continue
        right = stack.pop()
        try:
            stack.append(OPERATORS[term](stack.pop(), right))
        except ZeroDivisionError:
            return None
    return stack.pop()


class _Known:
    """What a number was computed from: numbers and names of operators, operands first."""

    terms: tuple[Term, ...]


class Size(_Known, int):
    """A whole number that follows from sizes."""

    def __new__(cls, value: int, terms: tuple[Term, ...] | None = None) -> Size:
        made = int.__new__(cls, value)
        made.terms = (int(value),) if terms is None else terms
        return made

    def __int__(self) -> int:
        return int.__int__(_escaped(int.__int__(self)))

    def __float__(self) -> float:
        _escaped(int.__int__(self))
        return int.__float__(self)

    def __hash__(self) -> int:
        return int.__hash__(_escaped(int.__int__(self)))

    def __bool__(self) -> bool:
        return _noted("ne", self, 0, int.__bool__(self))

    def __neg__(self) -> int:
        return Size(int.__neg__(self), (0, *self.terms, "sub"))


class Ratio(_Known, float):
    """A number with a fraction that follows from sizes."""

    def __new__(cls, value: float, terms: tuple[Term, ...]) -> Ratio:
        made = float.__new__(cls, value)
        made.terms = terms
        return made

    def __hash__(self) -> int:
        return float.__hash__(self)

    def __bool__(self) -> bool:
        return _noted("ne", self, 0, float.__bool__(self))

    def __int__(self) -> int:
        return int.__int__(_escaped(float.__int__(self)))


def _plain(value: Any) -> Any:
    if isinstance(value, Size):
        return int.__int__(value)
    return float.__add__(value, 0.0) if isinstance(value, Ratio) else value


def plain(value: Any) -> Any:
    """A number without what it was computed from; anything else as it is."""
    return _plain(value) if isinstance(value, _Known) else value


def _terms(value: Any) -> tuple[Term, ...]:
    return value.terms if isinstance(value, _Known) else (value,)


def _counted(name: str, reflected: bool) -> Callable[[Any, Any], Any]:
    compute = getattr(operator, name)
    op = "div" if name == "truediv" else name

    def method(self: Any, other: Any) -> Any:
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        value = compute(_plain(left), _plain(right))
        if not _foreign(1):
            return value
        terms = (*_terms(left), *_terms(right), op)
        return Size(value, terms) if isinstance(value, int) else Ratio(value, terms)

    return method


def _compared(name: str) -> Callable[[Any, Any], Any]:
    compute = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        return _noted(name, self, other, compute(_plain(self), _plain(other)))

    return method


def _other(name: str, kind: type) -> Callable[..., Any]:
    """An operation that no plan has: its result is a plain number."""
    compute = getattr(kind, name)

    def method(self: Any, *others: Any) -> Any:
        _escaped(_plain(self))
        return compute(_plain(self), *map(_plain, others))

    return method


_OTHERS = {
    Size: ("pow", "rpow", "divmod", "rdivmod", "lshift", "rshift", "and", "rand", "or", "ror",
           "xor", "rxor", "invert", "round", "trunc", "floor", "ceil"),
    Ratio: ("pow", "rpow", "divmod", "rdivmod", "round", "trunc", "neg", "abs", "floor", "ceil"),
}  # fmt: skip
for _kind, _names in _OTHERS.items():
    for _name in _names:
        setattr(_kind, f"__{_name}__", _other(f"__{_name}__", _kind.__mro__[2]))
for _kind in (Size, Ratio):
    for _name in _ARITHMETIC:
        setattr(_kind, f"__{_name}__", _counted(_name, False))
        setattr(_kind, f"__r{_name}__", _counted(_name, True))
    for _name in _COMPARED:
        setattr(_kind, f"__{_name}__", _compared(_name))


def _foreign(depth: int) -> bool:
    """Whether code that is neither ours nor torch's asks, and a forward is recorded."""
    recorder = current().recorder
    if recorder is None or recorder.hidden:
        return False
    frame = sys._getframe(depth + 1)
    while (name := str(frame.f_globals.get("__name__", ""))) in _BETWEEN and frame.f_back:
        frame = frame.f_back
    return not name.startswith(_OURS) and name != "torch"


def _noted(op: str, left: Any, right: Any, outcome: bool) -> bool:
    """Notes a comparison; asked by a method of a number, which somebody called."""
    finite = isinstance(right, int) or math.isfinite(right)
    if finite and _foreign(2):
        current().recorder.expect((*_terms(left), *_terms(right), op), outcome)
    return outcome


def _escaped(value: Any) -> Any:
    """Notes that a plain number is made of a size."""
    if _foreign(2):
        current().recorder.escaped(value)
    return value


class SizesSeen(TorchFunctionMode):
    """Gives code that is not ours sizes that remember what they are."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        recorder = current().recorder
        if recorder is None or recorder.hidden:  # most calls: inside of a step nobody looks
            return func(*args, **(kwargs or {}))
        if func in _LEAVING and _foreign(1):
            recorder.refuse("it reads values of the data")
        # What operators are given is a plain number to all that comes after this.
        with recorder.given(_counts(args, kwargs)):
            result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.__getitem__ and _foreign(1):
            _sliced(args[0], args[1])
        if func not in _ASKING or not _foreign(1):
            return result
        if func is torch.Tensor.__len__:
            current().recorder.escaped(result)
            return result
        if isinstance(result, torch.Size):
            return torch.Size([Size(n) for n in result])
        return Size(result) if isinstance(result, int) else result


def _counts(args: Any, kwargs: Any) -> dict[int, tuple[Term, ...]]:
    """The numbers among arguments that were computed from several sizes, and how."""
    found = {}
    left = [args, kwargs or {}]
    while left:
        value = left.pop()
        if isinstance(value, Size) and len(value.terms) > 1:
            found[_plain(value)] = value.terms
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, slice):
            left += (value.start, value.stop)
    return found


def _sliced(t: torch.Tensor, index: Any) -> None:
    """Notes whether slices end within their axes: torch leaves out those that do not."""
    parts = index if isinstance(index, tuple) else (index,)
    dim = 0
    for i, part in enumerate(parts):
        if part is Ellipsis:
            dim = t.dim() - sum(_axes(other) for other in parts[i + 1 :])
            continue
        if isinstance(part, slice):
            size = torch.Tensor.size(t, dim)
            for end in (part.start, part.stop):
                if isinstance(end, int) and _plain(end) >= 0:
                    terms = (*_terms(end), int.__int__(size), "ge")
                    current().recorder.expect(terms, _plain(end) >= size)
        dim += _axes(part)


def _axes(part: Any) -> int:
    """How many axes a part of an index is of."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.dim() if isinstance(part, torch.Tensor) and part.dtype == torch.bool else 1


# What gives values away, for code that nobody sees.
_LEAVING = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__)
_ASKING = (
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.nelement,
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.__len__,
)
