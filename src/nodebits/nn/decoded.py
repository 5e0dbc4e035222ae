"""A quantized weight read by other code than its layer: a tied decoder, a penalty, a table.

Outside of training such code must see what the packed layer holds, or the two differ. But a model's
weight is also written to (``layer.weight.data.copy_(...)``), frozen and asked for its gradient:
that concerns the parameter. :class:`DecodedWeight` is the values to whoever reads, and the
parameter to whoever writes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.engine.weight import PackedWeight
from nodebits.nn.quantizers.weight import WeightQuantizer


def weight_values(
    quantizer: WeightQuantizer | PackedWeight, parameter: Tensor | None, place: str
) -> Tensor:
    """A layer's weight as other code shall see it.

    Args:
        quantizer: Of the layer.
        parameter: float32 ``[M, K]``, None in a packed layer.
        place: Path and class of the layer.

    Returns:
        The parameter while the layer trains or stays in float; otherwise the values of the codes,
        float32 ``[M, K]``.

    Raises:
        ConfigError: If a packed weight is written to later.
    """
    if isinstance(quantizer, PackedWeight):
        values = quantizer.dequantize()
    else:
        assert parameter is not None
        if quantizer.training or not quantizer.max_magnitude:
            return parameter
        if not quantizer.known:  # to look at a weight does not set its scale
            quantizer = copy.deepcopy(quantizer)
        codes, scale = quantizer(parameter)
        values = codes * scale.view(-1, 1)
    if torch.compiler.is_compiling():
        return values
    return DecodedWeight(values, parameter, place)


class DecodedWeight(Tensor):
    """Values of a weight's codes, float32 ``[M, K]``; what is written goes to the parameter."""

    _decoded: Tensor
    _parameter: Tensor | None
    _place: str

    @staticmethod
    def __new__(cls, values: Tensor, parameter: Tensor | None, place: str) -> DecodedWeight:
        """Wraps values."""
        self: DecodedWeight = values.as_subclass(cls)
        self._decoded, self._parameter, self._place = values, parameter, place
        # What torch asks for `isinstance(weight, nn.Parameter)`, and so for `get_parameter`.
        self._is_param = parameter is not None
        return self

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Reads the values, writes to the parameter."""
        first = args[0] if args else None
        kwargs = {k: _written(v) if k == "out" else v for k, v in (kwargs or {}).items()}
        if _writes(func):
            args = tuple(_written(v) if i == 0 else v for i, v in enumerate(args))
            # The functions of torch.nn.init name their argument.
            kwargs = {k: _written(v) if k == "tensor" else v for k, v in kwargs.items()}
        elif isinstance(first, DecodedWeight):
            if func in _DETACHED:
                target = None if first._parameter is None else first._parameter.detach()
                return DecodedWeight(first._decoded.detach(), target, first._place)
            if func in _COPIED:
                args = (first._decoded.detach(), *args[1:])
            elif func in _OF_PARAMETER and first._parameter is not None:
                args = (first._parameter, *args[1:])
        return func(*_read(args), **_read(kwargs))


def _written(value: Any) -> Any:
    """``value`` with parameters in place of decoded weights."""
    if isinstance(value, list | tuple):
        return [_written(part) for part in value]
    if not isinstance(value, DecodedWeight):
        return value
    if value._parameter is None:
        raise ConfigError(
            f"the weight of layer {value._place} is packed and cannot be written to: change the "
            "prepared model and convert it again"
        )
    return value._parameter


def _writes(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    operator = name in ("__setitem__", "__delitem__") or name in _ASSIGNMENTS
    return operator or func in _SETTERS or (name.endswith("_") and not name.endswith("__"))


def _read(value: Any) -> Any:
    """``value`` with plain tensors in place of decoded weights."""
    if isinstance(value, DecodedWeight):
        return value._decoded
    if type(value) in (list, tuple):
        return type(value)(_read(part) for part in value)
    if type(value) is dict:
        return {key: _read(part) for key, part in value.items()}
    return value


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
_ASSIGNMENTS = {f"__i{name}__" for name in (*_OPERATORS, "lshift", "rshift")}
_SETTERS = {
    Tensor.data.__set__,  # type: ignore[attr-defined]
    Tensor.grad.__set__,  # type: ignore[union-attr]
    Tensor.requires_grad.__set__,  # type: ignore[attr-defined]
}
_OF_PARAMETER = {
    Tensor.grad.__get__,  # type: ignore[union-attr]
    Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
    Tensor.is_leaf.__get__,  # type: ignore[attr-defined]
}
_DETACHED = {Tensor.data.__get__, Tensor.detach}  # type: ignore[attr-defined]
_COPIED = {Tensor.__deepcopy__, Tensor.__reduce_ex__}
