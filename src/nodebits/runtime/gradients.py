"""Results of a packed model under autograd: computed, and refused when they are differentiated.

An explainer learns a mask of the features, an attack their change. Codes have no gradient, and a
result that silently had none would end in an error of torch that names neither model nor cure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import NO_GRADIENTS, UnsupportedLayerError


class _Refused(torch.autograd.Function):
    """The identity, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, *inputs: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise UnsupportedLayerError(NO_GRADIENTS)


def without_gradients(result: Any, args: Any) -> Any:
    """``result``, whose ``backward`` raises where ``args`` hold a tensor that asks for a gradient.

    Args:
        result: What a packed model returned: a tensor, or tuples, lists and dictionaries of such.
        args: What it was given.

    Returns:
        The same values.
    """
    inputs = [tensor for tensor in _tensors(args) if tensor.requires_grad]
    return _marked(result, inputs) if inputs and torch.is_grad_enabled() else result


def _marked(value: Any, inputs: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return _Refused.apply(value, *inputs) if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_marked(part, inputs) for part in value)
    if type(value) is dict:
        return {key: _marked(part, inputs) for key, part in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
