"""What layers compute alone, in float and at a width: their time and their error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import NodebitsError
from nodebits.core.modes import evaluating


@dataclass
class LayerCalls:
    """One float layer in a forward.

    Attributes:
        args: Of its first call.
        keywords: Likewise.
        result: Of its first call.
        seconds: Of all its calls, with the layers inside it.
    """

    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] | None = None
    result: Any = None
    seconds: float = 0.0


@torch.no_grad()
def layer_calls(
    model: nn.Module, paths: Iterable[str], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[dict[str, LayerCalls], float]:
    """Runs a float model once and keeps what its layers are given and return.

    Args:
        model: The model; it is as it was afterwards.
        paths: Of the layers.
        args: What the model takes.
        keywords: Likewise.

    Returns:
        The layers' calls by path, and the seconds of the whole forward.
    """
    calls: dict[str, LayerCalls] = {}
    started: dict[str, list[float]] = {}
    handles = []

    def watch(path: str, module: nn.Module) -> None:
        calls[path] = call = LayerCalls()
        clock = started[path] = []

        def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if call.keywords is None:
                call.args, call.keywords = _copied(given), _copied(named)
            clock.append(time.perf_counter())

        def after(_: nn.Module, __: Any, ___: Any, result: Any) -> None:
            call.seconds += time.perf_counter() - clock.pop()
            if call.result is None:
                call.result = _copied(result)

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))

    for path in paths:
        watch(path, model.get_submodule(path))
    try:
        with evaluating(model):
            start = time.perf_counter()
            model(*args, **keywords)
            seconds = time.perf_counter() - start
    finally:
        for handle in handles:
            handle.remove()
    return calls, seconds


@torch.no_grad()
def layer_errors(prepared: nn.Module, calls: Mapping[str, LayerCalls]) -> dict[str, float]:
    """Relative differences of layers from their float twins, each run alone on its float input.

    Args:
        prepared: A prepared model that was calibrated.
        calls: Of the float model.

    Returns:
        By path; layers that did not run, or that do not run alone, are left out.
    """
    found = {}
    with evaluating(prepared):
        for path, call in calls.items():
            if call.keywords is None:
                continue
            try:
                made = prepared.get_submodule(path)(*_copied(call.args), **_copied(call.keywords))
            except (NodebitsError, AttributeError, RuntimeError, TypeError, ValueError):
                continue  # it needs what the model's forward sets up around it
            error = relative_error(made, call.result)
            if error is not None:
                found[path] = error
    return found


def relative_error(found: Any, expected: Any) -> float | None:
    """Difference of all floats in two results, by norms; None where they are not alike."""
    pairs = list(zip(floats(found), floats(expected), strict=False))
    if not pairs or any(one.shape != other.shape for one, other in pairs):
        return None
    gap = sum(float((one - other).norm()) ** 2 for one, other in pairs)
    scale = sum(float(other.norm()) ** 2 for _, other in pairs)
    return float((gap / max(scale, 1e-60)) ** 0.5)


def floats(value: Any) -> Iterator[Tensor]:
    """The float tensors in a result and in the containers that PyG's models return."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.layout == torch.strided:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from floats(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from floats(part)


def _copied(value: Any) -> Any:
    """``value`` with copies of its floats: later layers may write to them."""
    if isinstance(value, Tensor):
        return value.clone() if type(value) is Tensor and value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(part) for part in value)
    return value
