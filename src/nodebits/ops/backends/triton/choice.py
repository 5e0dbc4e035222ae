"""Whether the kernels can serve here; the definitions run on the device where they cannot."""

from __future__ import annotations

import warnings
from functools import cache, partial
from importlib import import_module, metadata
from typing import Any

import torch

from nodebits.ops.operator import LIBRARY, OPERATORS, Operator

OLDEST = (3, 4)
_CAPABILITY = (8, 0)


def triton_problem() -> str | None:
    """Why there are no kernels, whatever the device; None where there are."""
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "triton is not installed; pip install 'nodebits[gpu]' brings it"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"triton {version} is older than {oldest}; pip install -U triton brings a newer one"
    try:
        import_module("triton")
    except ImportError as error:
        return f"triton {version} cannot be imported ({error}); install it anew"
    return None


def device_problem() -> str | None:
    """Why kernels cannot run on this process' CUDA device; None where they can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None:
        return "this torch is built for ROCm, for which no kernel was tried"
    found = torch.cuda.get_device_capability()
    if found < _CAPABILITY:
        name, needed = torch.cuda.get_device_name(), ".".join(map(str, _CAPABILITY))
        return f"{name} has compute capability {found[0]}.{found[1]}; kernels need {needed}"
    return None


def describe() -> str:
    """What runs on CUDA devices, and why it is not the kernels, if so."""
    problem = device_problem() or triton_problem()
    if problem is not None:
        return f"the definitions, in torch: {problem}"
    others = ", ".join(name for name, how in serves().items() if how == "definition")
    measured = len(import_module("nodebits.ops.backends.triton.launch").choices())
    tiles = (
        f"tiles of {measured} shapes measured, of others by rule" if measured else "tiles by rule"
    )
    return (
        f"kernels of triton {metadata.version('triton')} on {torch.cuda.get_device_name()}, "
        f"{tiles}; the definitions, in torch: {others}"
    )


def serves() -> dict[str, str]:
    """By operator whether it has a kernel here: ``"triton"`` or ``"definition"``."""
    having: Any = ()
    if (device_problem() or triton_problem()) is None:
        having = import_module("nodebits.ops.backends.triton.calls").IMPLEMENTATIONS
    return {name: "triton" if name in having else "definition" for name in OPERATORS}


def names() -> frozenset[str]:
    """The operators that kernels compute on this process' CUDA device."""
    kernels = _kernels()
    return frozenset() if kernels is None else frozenset(kernels.IMPLEMENTATIONS)


@cache
def _kernels() -> Any:
    """The calls of the kernels; None, after one warning, where the definitions must do."""
    problem = triton_problem() or device_problem()
    if problem is not None:
        warnings.warn(
            f"operators on this CUDA device run as their definitions, right and slow: {problem}",
            stacklevel=2,
        )
        return None
    return import_module("nodebits.ops.backends.triton.calls")


def _compute(op: Operator[..., Any], checked: Any) -> Any:
    kernels = _kernels()
    return checked.compute() if kernels is None else kernels.call(op, checked)


def register() -> None:
    """Makes the kernels, or the definitions in their place, the operators of CUDA devices."""
    for op in OPERATORS.values():
        LIBRARY.impl(op.name, partial(op.run, partial(_compute, op)), "CUDA")
