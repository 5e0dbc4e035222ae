"""What a packed model still holds and passes on in float: layers without sites, and biases.

A quantized layer accounts for its own sites. Everything else is found here: values by walking the
modules, activation tensors by hooks during one forward.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import MessagePassing

from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.evaluation import type_of
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import QuantBatchNorm
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

_AT_SITES = (PackedWeight, Quantizer, RowQuantizer, WeightQuantizer)


@dataclass(frozen=True)
class FloatTensor:
    """A tensor that no quantizer sits at.

    Attributes:
        layer: Path of the module that holds or reads it.
        name: Name of the value; ``input``, or ``message`` where it enters a neighbour sum.
        num_rows: Rows.
        num_cols: Values in a row.
        item_bytes: Bytes of a value.
    """

    layer: str
    name: str
    num_rows: int
    num_cols: int
    item_bytes: int

    @classmethod
    def of(cls, layer: str, name: str, value: Tensor) -> FloatTensor:
        """Describes ``value``; a vector is one row."""
        rows = value.size(0) if value.dim() > 1 else 1
        return cls(layer, name, rows, value.numel() // max(rows, 1), value.element_size())


def float_layers(module: nn.Module) -> dict[str, str]:
    """The modules that stayed in float: those with values of their own, and convolutions.

    Args:
        module: A packed model's module.

    Returns:
        Class name by path. Quantized layers, whose biases are float too, are not among them, nor
        are norms and aggregations of which factors are left: they are part of a rescaling.
    """
    scaling = {
        id(getattr(layer, name))
        for layer in module.modules()
        if isinstance(layer, QuantLayer) and _packed(layer)
        for name in layer.scaling_parts
    }
    return {
        path: type_of(child).__name__
        for path, child in _without_sites(module)
        if not _packed(child)
        and id(child) not in scaling
        and (isinstance(child, MessagePassing) or any(_own_values(child)))
    }


def float_values(module: nn.Module) -> list[FloatTensor]:
    """Every stored value of a packed model that is not at a site, biases of its layers included.

    A value under several names is listed under the first.
    """
    seen: set[int] = set()
    found = []
    for path, child in _without_sites(module):
        for name, value in _own_values(child):
            if id(value) not in seen:
                seen.add(id(value))
                found.append(FloatTensor.of(path, name, value))
    return found


@contextmanager
def recording_float_inputs(module: nn.Module) -> Iterator[list[FloatTensor]]:
    """Collects the float tensors that the float layers of ``module`` read while it is open.

    Forwards of other threads are not collected.
    """
    found: list[FloatTensor] = []
    thread = threading.get_ident()

    def note(path: str, name: str, values: Any) -> None:
        if threading.get_ident() != thread:
            return
        for value in _distinct_tensors(values):
            rows = value.size(0) if value.dim() else 1
            found.append(
                FloatTensor(path, name, rows, value.numel() // max(rows, 1), value.element_size())
            )

    def before_layer(path: str) -> Any:
        return lambda _, args, keywords: note(path, "input", (args, keywords))

    def before_sum(path: str) -> Any:
        return lambda _, inputs: note(path, "message", inputs[-1])

    handles = []
    for path, child in _without_sites(module):
        if _packed(child):
            continue
        if isinstance(child, MessagePassing):
            handles.append(child.register_propagate_forward_pre_hook(before_sum(path)))
        # What holds quantized layers hands its input on to them, where it is counted.
        if _has_matrix(child) and not any(isinstance(m, QuantLayer) for m in child.modules()):
            handles.append(child.register_forward_pre_hook(before_layer(path), with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _packed(module: nn.Module) -> bool:
    frozen = isinstance(module, QuantBatchNorm) and module.frozen
    return frozen or (isinstance(module, QuantLayer) and not module.float_reason)


def _without_sites(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    inside = {id(m) for q in module.modules() if isinstance(q, _AT_SITES) for m in q.modules()}
    return ((path, m) for path, m in module.named_modules() if id(m) not in inside)


def _own_values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What the module itself adds to a saved model."""
    passing = module._non_persistent_buffers_set
    for name, parameter in module.named_parameters(recurse=False):
        if not is_lazy(parameter):
            yield name, parameter
    for name, buffer in module.named_buffers(recurse=False):
        if name not in passing and not is_lazy(buffer):
            yield name, buffer


def _has_matrix(module: nn.Module) -> bool:
    """Whether the module computes with values of its own.

    A convolution's vector is its bias or attention, which meets what enters the sum.
    """
    least = 2 if isinstance(module, MessagePassing) else 1
    return any(value.dim() >= least for _, value in _own_values(module))


def _distinct_tensors(values: Any) -> list[Tensor]:
    """The floating-point tensors in nested containers, each once."""
    found: dict[int, Tensor] = {}
    waiting = [values]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found.setdefault(id(value), value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, tuple | list):
            waiting += value
    return list(found.values())
