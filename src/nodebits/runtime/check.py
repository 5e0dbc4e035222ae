"""What would become of a model, before anything is trained: one call on an example."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData

from nodebits.core.errors import UnsupportedLayerWarning
from nodebits.core.modes import evaluating
from nodebits.methods import UniformConfig
from nodebits.methods.calibrate import calibrate, data_arguments
from nodebits.methods.prepare import prepare
from nodebits.nn.layer import QuantLayer
from nodebits.nn.wrappers import unwrap
from nodebits.runtime.convert import convert
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.sites import runs_of

_WIDTHS = (8, 4)


@dataclass(frozen=True)
class LayerCheck:
    """One layer.

    Attributes:
        path: In the model.
        kind: Class of the float layer.
        runs: See :class:`nodebits.runtime.sites.SiteLine`.
        float_bytes: Bytes of its values in float32.
        reason: Why it stays in float; empty otherwise.
    """

    path: str
    kind: str
    runs: str
    float_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Attributes:
        layers: Every layer with sites, and every one that stays in float.
        float_bytes: Bytes of the model's values in float32.
        packed_bytes: Bytes of the model at 8 bits.
        float_activation_bytes: Bytes of all tensors that layers read for the example, in float32.
        packed_activation_bytes: The same at 8 bits.
        errors: Relative difference of the result from the float model's, by width, calibrated on
            the example and not trained; empty where the result is no tensor.
        warnings: What was said of layers on the way.
        seconds: What the check took.
    """

    layers: tuple[LayerCheck, ...]
    float_bytes: int
    packed_bytes: int
    float_activation_bytes: int
    packed_activation_bytes: int
    errors: Mapping[int, float]
    warnings: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        width = max((len(layer.path) for layer in self.layers), default=0)
        lines = [
            f"{layer.path.ljust(width)}  {layer.runs:15}  {layer.kind}"
            f"{f': {layer.reason}' if layer.reason else ''}"
            for layer in self.layers
        ]
        lines.append(
            f"weights {self.float_bytes} -> {self.packed_bytes} bytes, activations "
            f"{self.float_activation_bytes} -> {self.packed_activation_bytes} bytes at 8 bits"
        )
        lines += [
            f"at {bits} bits the result differs by {100 * error:.2g} % before training"
            for bits, error in self.errors.items()
        ]
        return "\n".join([*lines, *self.warnings])


def check(model: nn.Module, *example: Any, **keywords: Any) -> Check:
    """Says what of ``model`` will run on integers, on tiles of decoded rows, or in float.

    The model is prepared and calibrated in a copy, at 8 and at 4 bits.

    Args:
        model: A float model.
        *example: What it takes, ``x, edge_index`` as a rule; or one PyG ``Data``.
        **keywords: What it takes by name.

    Returns:
        The findings; printed, they are a table.

    Raises:
        NothingToQuantizeError: If no layer of the model can be quantized.

    Example:
        >>> print(nodebits.check(model, x, edge_index))
    """
    start = time.perf_counter()
    model = unwrap(model)
    if len(example) == 1 and isinstance(example[0], BaseData):
        example, found = data_arguments(model, example[0])
        keywords = {**found, **keywords}
    with torch.no_grad(), evaluating(model):
        expected = model(*example, **keywords)
    errors: dict[int, float] = {}
    said: list[str] = []
    packed: PackedModel | None = None
    for bits in _WIDTHS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = _packed(model, bits, example, keywords)
        found_here = [str(w.message) for w in caught if w.category is UnsupportedLayerWarning]
        said = list(dict.fromkeys([*said, *found_here]))
        packed = packed or made
        result = made.predict(*example, **keywords)
        if isinstance(result, Tensor) and isinstance(expected, Tensor):
            errors[bits] = float((result - expected).norm() / expected.norm().clamp_min(1e-30))
    assert packed is not None
    account = packed.account(*example, **keywords)
    return Check(
        _layers(model, packed, account.float_layers),
        account.float_weight_bytes,
        account.weight_bytes,
        account.float_activation_bytes,
        account.activation_bytes,
        errors,
        tuple(said),
        time.perf_counter() - start,
    )


def _packed(
    model: nn.Module, bits: int, example: tuple[Any, ...], keywords: dict[str, Any]
) -> PackedModel:
    prepared = prepare(model, UniformConfig(bits=bits, mode="ptq"))
    calibrate(prepared, *example, **keywords)
    return convert(prepared, leave_unseen="float")


def _layers(
    model: nn.Module, packed: PackedModel, in_float: Mapping[str, str]
) -> tuple[LayerCheck, ...]:
    twins = dict(model.named_modules())
    found = []
    for path, layer in packed.module.named_modules():
        quantized = isinstance(layer, QuantLayer)
        if not quantized and path not in in_float:
            continue
        twin = twins.get(path, layer)
        size = sum(p.numel() * p.element_size() for p in twin.parameters(recurse=False))
        runs = runs_of(layer) if isinstance(layer, QuantLayer) else "float"
        reason = layer.float_reason if isinstance(layer, QuantLayer) else ""
        found.append(LayerCheck(path or "model", type(twin).__name__, runs, size, reason))
    return tuple(found)
