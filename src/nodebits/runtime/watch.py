"""What one forward does: its compiled calls and torch's operators between them, and what they need.

Every tensor is one of three: the features or something that torch computed from them alone, which
a later forward computes from its own features; memory that a step has written; or anything else,
which is taken as constant. A forward that asks for a value of a layer's result, to go on by it,
cannot be repeated by its steps, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nodebits.core.errors import CaptureError
from nodebits.engine.pending import waiting
from nodebits.ops.backends.cpu.calls import IMPLEMENTATIONS, STEPS

# Allocations: their result does not depend on the tensor that they are asked of.
_ALLOCATIONS = ("new_empty", "empty_like", "new_empty_strided")


class Recipe(NamedTuple):
    """How a tensor follows from the features: a torch operator and its arguments."""

    made: Tensor
    function: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    place: int | None  # in what the operator returns, where that is several tensors


class CompiledCall(NamedTuple):
    """A compiled call and its arguments."""

    name: str
    args: tuple[Any, ...]


class TorchCall(NamedTuple):
    """An operator of torch on what a step has written."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    made: tuple[Tensor, ...]  # memory of the results; none where it wrote to its arguments


class Guard(NamedTuple):
    """A value of the features that the forward went on by."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    result: Any


class Watch(TorchDispatchMode):
    """Notes what happens to the tensors of the features, and to memory that steps have written.

    Args:
        inputs: Tensors of the features.

    Attributes:
        steps: All that depends on more than the features alone, in order.
        guards: What other features must have in common with these.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By identity. The tensors are held: another one must not get the number of one that died.
        self.inputs = {id(t): t for t in inputs}
        self.recipes: dict[int, Recipe] = {}
        self.written: dict[int, Tensor] = {}
        self.steps: list[CompiledCall | TorchCall] = []
        self.guards: list[Guard] = []

    def depends_on_input(self, t: Tensor) -> bool:
        """Whether ``t`` is, or follows by torch operators from, the features."""
        return id(t) in self.inputs or id(t) in self.recipes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """For every torch operator, nodebits' own included."""
        keywords = kwargs or {}
        given = tensors_in((args, keywords))
        if any(waiting(t) is not None for t in given):
            raise _refusal(f"torch's {func} reads a layer's result")
        if func.namespace == "nodebits":
            with self:  # sees what the operator does inside
                return IMPLEMENTATIONS[func._opname](*args, **keywords)
        result = func(*args, **keywords)
        if func._opname in _ALLOCATIONS:
            return result
        made = tensors_in(result)
        if any(id(t) in self.written for t in given):
            self._add(func, args, keywords, given, made)
        elif any(self.depends_on_input(t) for t in given):
            if func._schema.is_mutable:
                raise _refusal(f"torch's {func} changes the features, or what follows from them")
            if not made:
                self.guards.append(Guard(func, args, keywords, result))
            several = isinstance(result, (list, tuple))
            for place, t in enumerate(made):
                self.recipes[id(t)] = Recipe(t, func, args, keywords, place if several else None)
        return result

    def _add(
        self,
        func: Any,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        given: list[Tensor],
        made: list[Tensor],
    ) -> None:
        changed = _changed(func, args, keywords)
        if any(id(t) not in self.written for t in changed):
            raise _refusal(f"torch's {func} changes a tensor that was there before")
        if not made or torch.Tag.dynamic_output_shape in func.tags:
            raise _refusal(f"torch's {func} asks for values of a layer's result")
        if changed or not all(_shares(t, given) for t in made):
            self.steps.append(TorchCall(func, args, keywords, () if changed else tuple(made)))
        self.written.update({id(t): t for t in made})

    def called(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """For every compiled call."""
        given = tensors_in(args)
        if not any(self.depends_on_input(t) or id(t) in self.written for t in given):
            return
        if name not in STEPS or result is not None:
            raise _refusal(f"{name} decides by the values of the features")
        for out in tensors_in(args[-1 - STEPS[name] : -1]):
            if self.depends_on_input(out):
                raise _refusal(f"{name} writes to the features")
            self.written[id(out)] = out
        self.steps.append(CompiledCall(name, args))

    def same_guards(self, inputs: dict[int, Tensor], memo: dict[int, Tensor]) -> bool:
        """Whether the forward would go on in the same way for other features; as :meth:`value`."""
        for guard in self.guards:
            args, keywords = mapped(
                (guard.args, guard.keywords), lambda t: self.value(t, inputs, memo)
            )
            if guard.function(*args, **keywords) != guard.result:
                return False
        return True

    def value(self, t: Tensor, inputs: dict[int, Tensor], memo: dict[int, Tensor]) -> Tensor:
        """``t`` as it is for other features.

        Args:
            t: A tensor of the watched forward.
            inputs: The tensors of the other features, by identity of those that were watched.
            memo: What was computed from them already.
        """
        if id(t) in inputs:
            return inputs[id(t)]
        if id(t) not in self.recipes:
            return t
        if id(t) not in memo:
            recipe = self.recipes[id(t)]
            args, keywords = mapped(
                (recipe.args, recipe.keywords), lambda a: self.value(a, inputs, memo)
            )
            made = recipe.function(*args, **keywords)
            memo[id(t)] = made if recipe.place is None else made[recipe.place]
        return memo[id(t)]


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``change`` of every tensor in its lists, tuples and dictionaries.

    torch's own function for this takes as long as several of a small graph's compiled calls.
    """
    if isinstance(value, Tensor):
        return change(value)
    kind = type(value)
    if kind is list:
        return [mapped(part, change) for part in value]
    if isinstance(value, tuple):  # records of operators among them
        return tuple([mapped(part, change) for part in value])
    if kind is dict:
        return {key: mapped(part, change) for key, part in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in lists, tuples and dictionaries."""
    found: list[Tensor] = []
    mapped(value, found.append)
    return found


def _refusal(why: str) -> CaptureError:
    return CaptureError(
        f"this forward cannot be captured, since {why}: use predict, and pack_input where the "
        "features are a float matrix"
    )


def _changed(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operator writes to."""
    found = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[i] if i < len(args) else keywords.get(argument.name)
            found += tensors_in(given)
    return found


def _shares(t: Tensor, others: list[Tensor]) -> bool:
    memory = t.untyped_storage().data_ptr()
    return any(memory == o.untyped_storage().data_ptr() for o in others)
