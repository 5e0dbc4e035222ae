"""A plan as one operator of torch, so that ``torch.compile`` and ``torch.export`` take it as one.

``torch.ops.nodebits.run_plan(text, constants, inputs)`` returns the tensors of the plan's outputs.
The text says what runs and the constants are the model's tensors, so an exported program holds all
that it needs; whoever runs it imports nodebits.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import NO_GRADIENTS, ConfigError, UnsupportedLayerError
from nodebits.ops.backends.cpu import kernels
from nodebits.ops.operator import LIBRARY
from nodebits.plan.device.runner import DeviceRunner
from nodebits.plan.native import NativeRunner
from nodebits.plan.plan import Plan
from nodebits.plan.run import ReferenceRunner

_MOST_KEPT = 32
_kept: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()

LIBRARY.define(
    "run_plan(str text, Tensor[] constants, Tensor[] inputs, int watched=-1) -> Tensor[]"
)
LIBRARY.define("refuse_gradient(Tensor gradient, Tensor input) -> Tensor")
# What tells whether a model is what it was when its plan was made. The numbers are drawn: one that
# another process wrote into compiled code must not be that of another model here.
_watched: dict[int, Any] = {}


def watch(owner: object, guard: Any) -> int:
    """A number for what the operator looks at in every run, for as long as ``owner`` lives.

    Args:
        owner: The model.
        guard: Whose ``holds()`` says whether its plan holds.
    """
    number = secrets.randbits(62)
    _watched[number] = guard
    weakref.finalize(owner, _watched.pop, number, None)
    return number


def is_same(watched: int) -> bool:
    """Whether a model is what it was; True where nothing is known of it."""
    guard = _watched.get(watched)
    return guard is None or bool(guard.holds())


def described(plan: Plan) -> tuple[str, list[Tensor]]:
    """What the operator is given of a plan.

    Raises:
        ConfigError: If a step of the plan is a module, which only the model itself can run.
    """
    whole = [name for name in plan.leaves if name.startswith("module: ")]
    if whole:
        raise ConfigError(
            f"the plan has {', '.join(map(repr, whole))} as a step, which only the module can run: "
            "torch.compile and torch.export take models whose layers all have steps"
        )
    return plan.text, list(plan.constants.values())


def _runner(text: str, constants: Sequence[Tensor], device: torch.device) -> Any:
    key = (text, tuple(t.data_ptr() for t in constants), kernels.compiled() is None, device)
    with _lock:
        found = _kept.get(key)
        if found is None:
            about = Plan(text, {}).about
            names = list(dict.fromkeys(about["constants"].values()))
            plan = Plan(text, dict(zip(names, constants, strict=True)))
            runner: Any
            if device.type != "cpu":
                runner = DeviceRunner(plan, None, device)
            elif kernels.compiled() is not None:
                runner = NativeRunner(plan, None)
            else:
                runner = ReferenceRunner(plan, None)
            _kept[key] = found = (runner, [one["value"] for one in about["inputs"]], constants)
            while len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
    return found


def _run(
    text: str, constants: list[Tensor], inputs: list[Tensor], watched: int = -1
) -> list[Tensor]:
    if not is_same(watched):
        raise ConfigError(
            "the model was changed after torch.compile had taken its plan: call "
            "torch.compiler.reset(), and the compiled model takes the plan of what it is now"
        )
    runner, values, _ = _runner(text, constants, inputs[0].device)
    given = [t.detach().contiguous() for t in inputs]
    given = [t.float() if t.is_floating_point() else t for t in given]
    result = runner.run(dict(zip(values, given, strict=True)))
    flat: list[Tensor] = []
    _flatten(result, flat)
    return [t.clone() if any(t is one for one in (*given, *constants)) else t for t in flat]


def _flatten(result: Any, found: list[Tensor]) -> None:
    if isinstance(result, Tensor):
        found.append(result)
    elif result is not None:
        for part in result.values() if isinstance(result, dict) else result:
            _flatten(part, found)


@torch.library.register_fake("nodebits::run_plan", lib=LIBRARY)
def _fake(
    text: str, constants: list[Tensor], inputs: list[Tensor], watched: int = -1
) -> list[Tensor]:
    about = Plan(text, {}).about
    sizes = {one["value"]: t.shape for one, t in zip(about["inputs"], inputs, strict=True)}
    made = []
    for output in outputs_of(about["outputs"]):
        shape = []
        for size in output["shape"]:
            if isinstance(size, str):
                value, axis = size[1:].split(".")
                size = sizes[int(value)][int(axis)]
            elif size is None:
                size = torch.library.get_ctx().new_dynamic_size()
            shape.append(size)
        dtype = getattr(torch, output["dtype"])
        made.append(torch.empty(shape, dtype=dtype, device=inputs[0].device))
    return made


def outputs_of(about: Any) -> list[dict[str, Any]]:
    """The outputs of a plan, in order."""
    if isinstance(about, list):
        return [one for part in about for one in outputs_of(part)]
    if "value" in about:
        return [about]
    if "none" in about:
        return []
    if "items" in about:
        return [one for _, part in about["items"] for one in outputs_of(part)]
    parts = about["dict"].values() if "dict" in about else about["tuple"]
    return [one for part in parts for one in outputs_of(part)]


@torch.library.register_fake("nodebits::refuse_gradient", lib=LIBRARY)
def _fake_gradient(gradient: Tensor, given: Tensor) -> Tensor:
    return torch.empty_like(given)


def _refuse(gradient: Tensor, given: Tensor) -> Tensor:
    raise UnsupportedLayerError(NO_GRADIENTS)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[2])
    ctx.constants = len(inputs[1])


def _backward(ctx: Any, gradients: list[Tensor | None]) -> Any:
    """An operator refuses, so that a compiled program does it when it is differentiated."""
    some = next(g for g in gradients if g is not None)
    made = [
        torch.ops.nodebits.refuse_gradient(some, t) if t.is_floating_point() else None
        for t in ctx.saved_tensors
    ]
    return None, [None] * ctx.constants, made, None


torch.library.register_autograd(
    "nodebits::run_plan", _backward, setup_context=_keep_inputs, lib=LIBRARY
)
LIBRARY.impl("refuse_gradient", _refuse, "CompositeExplicitAutograd")
LIBRARY.impl("run_plan", _run, "CPU")
LIBRARY.impl("run_plan", _run, "CompositeExplicitAutograd")
