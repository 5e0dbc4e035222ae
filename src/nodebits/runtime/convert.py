"""From a prepared and trained model to a packed one."""

from __future__ import annotations

import copy

from torch import nn

from nodebits.core.errors import NothingToQuantizeError
from nodebits.nn.layer import QuantLayer
from nodebits.nn.models import ModelSpec
from nodebits.nn.norm import QuantBatchNorm
from nodebits.nn.quantizers.rows import RowQuantizer
from nodebits.runtime.packed import PackedModel


def convert(model: nn.Module, spec: ModelSpec | None = None) -> PackedModel:
    """Freezes every site of a copy of ``model``; no float copy of a quantized tensor remains.

    Args:
        model: A prepared model, trained or calibrated.
        spec: Description of a named model, which lets :func:`nodebits.load` rebuild it from the
            file alone.

    Returns:
        The packed model, in evaluation mode.

    Raises:
        NothingToQuantizeError: If ``model`` was not prepared.
        NotCalibratedError: If a quantizer has seen no data.
    """
    if isinstance(model, PackedModel):
        return model
    model = copy.deepcopy(model).eval()
    layers = [m for m in model.modules() if isinstance(m, QuantLayer)]
    if not layers:
        raise NothingToQuantizeError(
            f"{type(model).__name__} has no quantized layers: call nodebits.prepare(model, config) "
            "first"
        )
    for layer in layers:
        layer.freeze()
    for module in model.modules():
        if isinstance(module, QuantBatchNorm):
            module.freeze()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    name_sites(model)
    return PackedModel(model, spec)


def name_sites(model: nn.Module) -> None:
    """Tells every layer, norm and frozen site its path, for reports and features packed ahead."""
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer):
            module.site_name = path
        elif isinstance(module, QuantLayer | QuantBatchNorm):
            module.layer_name = path
