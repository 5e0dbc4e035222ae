"""Operators on the CPU: check, allocate, call the compiled function of the same name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits.ops.backends.cpu import kernels as backend
from nodebits.ops.operator import LIBRARY, OPERATORS, Operator, Result

_OWN_PAGES = 4 << 20  # bytes
_WORTH_PAGES = 64  # edges of a row, or columns of a product / 4

# What each operator does on the CPU, by name, from the arguments of its schema.
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}

# Operators whose compiled calls can be steps of a program: what they write is not asked for its
# values while the forward goes on.
STEPS: dict[str, int] = {}
_ASKED = (
    "coo_to_csr", "fake_quantize", "fake_quantize_backward", "nearest_group", "rescale_backward",
    "rescale_floats",
)  # fmt: skip


def allocate(result: Result, kernels: Any) -> Tensor:
    """Uninitialised memory for a result.

    Large ones that take long to compute lie on pages of their own, which leave the process with
    them: a heap would keep them, and a forward on a large graph would hold all it ever held. Where
    there is less to do, pages that the system clears anew in every call would be felt.
    """
    shape = result.shape
    if result.widths is not None:
        shape = (kernels.bucket_bytes(result.widths, shape[1]),)
    size = math.prod(shape) * result.dtype.itemsize
    if result.work >= _WORTH_PAGES and size >= _OWN_PAGES:
        memory = kernels.fresh_bytes(size)
        if memory is not None:
            return from_dlpack(memory).view(result.dtype).view(shape)
    return torch.empty(shape, dtype=result.dtype, device="cpu")


def call(op: Operator[..., Any], checked: Any) -> Any:
    """The compiled function of an operator on checked arguments, or its definition without one."""
    kernels = backend.compiled()
    if kernels is None:
        return checked.compute()
    results = checked.results()
    function, threads = getattr(kernels, op.name), torch.get_num_threads()
    if isinstance(results, Result):
        out = allocate(results, kernels)
        function(*checked, out, threads)
        return out
    several = [allocate(one, kernels) for one in results]
    if op.num_outputs == 1:
        function(*checked, several, threads)
        return several
    function(*checked, *several, threads)
    return tuple(several)


def register() -> None:
    """Makes the compiled functions the operators of the CPU."""
    STEPS.update({op.name: op.num_outputs for op in OPERATORS.values() if op.name not in _ASKED})
    for op in OPERATORS.values():
        IMPLEMENTATIONS[op.name] = partial(op.run, partial(call, op))
        LIBRARY.impl(op.name, IMPLEMENTATIONS[op.name], "CPU")
