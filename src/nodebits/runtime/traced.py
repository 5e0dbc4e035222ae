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
    """

    text: str
    constants: list[Tensor]
    places: tuple[int | str, ...]
    structure: Any


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
    made = torch.ops.nodebits.run_plan(plan.text, plan.constants, inputs)
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
    if planned.operator is None:
        planned.operator = operator_plan(planned.plan)
    if isinstance(planned.operator, str):
        raise ConfigError(planned.operator)
    key: str = model._plans.operator_key(planned.operator)
    return key


def operator_plan(plan: Plan) -> OperatorPlan | str:
    """What the operator is given of a plan, or why there is no such operator."""
    about = plan.about
    try:
        text, constants = described(plan)
    except ConfigError as error:
        return str(error)
    roles = {one["role"]: one["name"] for one in about["arguments"]}
    for role, what in (("graph", "a sparse matrix or a prepared graph"), ("packed", "packed rows")):
        if role in roles:
            return (
                f"torch.compile and torch.export take tensors, and {roles[role]!r} is {what}: call "
                "packed.plan(x, edge_index, ...) with a float matrix and an edge_index"
            )
    places = {one["name"]: one["place"] for one in about["arguments"]}
    inputs = tuple([places[one["name"]] for one in about["inputs"]])
    outputs = about["outputs"]
    return OperatorPlan(text, constants, inputs, outputs)
