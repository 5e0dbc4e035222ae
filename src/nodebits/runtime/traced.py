"""A packed model under ``torch.compile`` and ``torch.export``: its plan, as one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.nn.translation import not_portable
from nodebits.plan.operator import described
from nodebits.plan.plan import Plan


class OperatorPlan(NamedTuple):
    """What the operator is given, and how arguments become its inputs.

    Attributes:
        text: Of the plan.
        constants: Likewise.
        places: Of the arguments that are inputs, by position or by name.
        structure: What they are put together to.
        watched: What tells whether the model is what it was (:func:`nodebits.plan.operator.watch`).
    """

    text: str
    constants: list[Tensor]
    places: tuple[int | str, ...]
    structure: Any
    watched: int


def as_operator(model: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What ``predict`` returns, as one operator of torch.

    Raises:
        ConfigError: If there is no plan for calls of this kind, or one with steps that only the
            module can run.
    """
    args = [_as_planned(value) for value in args]
    keywords = {name: _as_planned(value) for name, value in keywords.items()}
    key = prepare(model, tuple(keywords), *args, *keywords.values())
    plan = model._plans.operators[key]
    inputs = [args[p] if isinstance(p, int) else keywords[p] for p in plan.places]
    # A program that was exported runs without the model.
    watched = -1 if torch.compiler.is_exporting() else plan.watched
    made = torch.ops.nodebits.run_plan(plan.text, plan.constants, inputs, watched)
    return _put_together(plan.structure, list(made))


def _as_planned(value: Any) -> Any:
    """Numbers of nodes as the type that plans have for them, and other numbers as constants."""
    if isinstance(value, Tensor):
        return value.long() if value.dtype == torch.int32 and value.dim() == 2 else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        (number,) = {value: None}  # torch.compile takes the keys of dictionaries as they are
        return number
    return value


def _put_together(about: Any, made: list[Tensor]) -> Any:
    if isinstance(about, list):
        return [_put_together(part, made) for part in about]
    if "value" in about:
        return made.pop(0)
    if "dict" in about:
        return {key: _put_together(part, made) for key, part in about["dict"].items()}
    return tuple([_put_together(part, made) for part in about["tuple"]])


@torch.compiler.assume_constant_result
def prepare(model: Any, names: tuple[str, ...], *values: Any) -> str:
    """The key of the operator for a call, which is made by code that is not translated itself.

    Args:
        model: The packed model.
        names: Of the last ones of the values, which are given by name.
        values: All arguments. While a program is exported they have types and sizes alone.

    Raises:
        ConfigError: See :func:`as_operator`.
    """
    if torch.onnx.is_in_onnx_export():
        raise not_portable("torch.onnx.export", "a packed model")
    first = len(values) - len(names)
    given = values[:first], dict(zip(names, values[first:], strict=True))
    if torch.compiler.is_exporting():  # which has put other tensors in the module's place
        planned = model._plans.like(model.module, *given)
    else:
        planned = model._plans.made(model.module, *given)
    if isinstance(planned, str):
        raise ConfigError(f"torch.compile and torch.export take a model with a plan: {planned}")
    key: str = model._plans.operator_of(model, planned)
    return key


def operator_plan(plan: Plan, watched: int) -> OperatorPlan:
    """What the operator is given of a plan.

    Args:
        plan: The plan.
        watched: What tells whether it holds.

    Raises:
        ConfigError: If the operator cannot run it.
    """
    about = plan.about
    text, constants = described(plan)
    held = [one["name"] for one in about["arguments"] if isinstance(one["place"], list)]
    if held:
        raise ConfigError(
            f"torch.compile and torch.export take tensors, and {held[0]!r} is held by another "
            "argument: predict runs the plan of calls by type, and nodebits.lite does"
        )
    roles = {one["role"]: one["name"] for one in about["arguments"]}
    for role, what in (("graph", "a sparse matrix or a prepared graph"), ("packed", "packed rows")):
        if role in roles:
            raise ConfigError(
                f"torch.compile and torch.export take tensors, and {roles[role]!r} is {what}: pass "
                "a float matrix and an edge_index"
            )
    places = {one["name"]: one["place"] for one in about["arguments"]}
    inputs = tuple([places[one["name"]] for one in about["inputs"]])
    return OperatorPlan(text, constants, inputs, about["outputs"], watched)
