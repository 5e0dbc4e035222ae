"""A packed model under ``torch.compile`` and ``torch.export``: its plan, as one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.nn.translation import not_portable
from nodebits.plan.operator import described, is_same, watch
from nodebits.plan.plan import Plan
from nodebits.runtime.planned import guard_of


class OperatorPlan(NamedTuple):
    """What the operator is given, and how arguments become its inputs.

    Attributes:
        text: Of the plan.
        constants: Likewise.
        places: Of the arguments that are inputs, by position or by name.
        structure: What they are put together to.
        watched: What tells whether the model is what it was (:func:`nodebits.plan.operator.watch`).
        attributes: The same but for its tensors, which ``torch.export`` replaces while it traces.
    """

    text: str
    constants: list[Tensor]
    places: tuple[int | str, ...]
    structure: Any
    watched: int
    attributes: int

    def __deepcopy__(self, memo: Any) -> None:
        """None: a copy of the model is another one, with a plan of its own."""

    def __reduce__(self) -> Any:
        """Likewise."""
        return type(None), ()


def as_operator(model: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What ``predict`` returns, as one operator of torch.

    Raises:
        ConfigError: If there is no plan, or one with steps that only the module can run.
    """
    prepare(model)
    plan = model.operator
    inputs = [args[p] if isinstance(p, int) else keywords[p] for p in plan.places]
    # A program that was exported runs without the model.
    watched = -1 if torch.compiler.is_exporting() else plan.watched
    made = torch.ops.nodebits.run_plan(plan.text, plan.constants, inputs, watched)
    return _put_together(plan.structure, list(made))


def _put_together(about: Any, made: list[Tensor]) -> Any:
    if isinstance(about, list):
        return [_put_together(part, made) for part in about]
    if "value" in about:
        return made.pop(0)
    if "dict" in about:
        return {key: _put_together(part, made) for key, part in about["dict"].items()}
    return tuple([_put_together(part, made) for part in about["tuple"]])


@torch.compiler.assume_constant_result
def prepare(model: Any) -> bool:
    """Has ``model.operator`` made, by code that is not translated itself.

    Raises:
        ConfigError: See :func:`as_operator`.
    """
    if torch.onnx.is_in_onnx_export():
        raise not_portable("torch.onnx.export", "a packed model")
    known = model.operator
    if torch.compiler.is_exporting():
        if isinstance(known, OperatorPlan) and not is_same(known.attributes):
            raise ConfigError(
                "the model was changed since its plan was made: call packed.plan(...) with the "
                "arguments again before torch.export"
            )
    elif model.is_stale() or (isinstance(known, OperatorPlan) and not is_same(known.watched)):
        model.operator = None
    if model.operator is None:
        if torch.compiler.is_exporting():
            raise ConfigError(
                "torch.export needs the plan of a packed model before it begins: call "
                "packed.plan(...) with the arguments once (convert does so by itself where the "
                "model was calibrated or trained by nodebits)"
            )
        model.operator = operator_plan(model.plan(), model)
    if isinstance(model.operator, str):
        raise ConfigError(model.operator)
    return True


def operator_plan(plan: Plan | str, model: Any) -> OperatorPlan | str:
    """What the operator is given of a plan, or why there is no such operator.

    Args:
        plan: Likewise.
        model: Whose plan it is.
    """
    if isinstance(plan, str):
        return f"torch.compile and torch.export take a model with a plan: {plan}"
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
    watched = watch(model, guard_of(model.module))
    attributes = watch(model, guard_of(model.module, tensors_replaced=True))
    return OperatorPlan(text, constants, inputs, about["outputs"], watched, attributes)
