"""From a prepared and trained model to a packed one."""

from __future__ import annotations

import copy
import warnings

from torch import nn

from nodebits.core.errors import DegenerateSiteWarning, NothingToQuantizeError
from nodebits.nn.layer import QuantLayer
from nodebits.nn.models import ModelSpec
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.rows import RowQuantizer
from nodebits.nn.quantizers.use import SampledCodes
from nodebits.runtime.fold import fold_norms
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
    samples = _samples(model)
    for layer in layers:
        layer.freeze()
    folded = fold_norms(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    name_sites(model)
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer) and path in samples:
            module.ends = samples[path].ends()
    return PackedModel(model, spec, folded)


def _samples(model: nn.Module) -> dict[str, SampledCodes]:
    """Codes of every site's last tensor; warns where they keep nothing of it."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantizer) and module.sampled is not None:
            found[path] = module.sampled
            problem = module.sampled.problem()
            if problem is not None:
                warnings.warn(
                    f"site {path!r} ({module.bits} bits, a scale per {module.describe()}) "
                    f"{problem}. Look for outliers in the data, scale its columns alike, or leave "
                    f"the site in float with overrides={{{path!r}: 32}}",
                    DegenerateSiteWarning,
                    stacklevel=3,
                )
    return found


def name_sites(model: nn.Module) -> None:
    """Tells every layer and frozen site its path, for reports and features packed ahead."""
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer):
            module.site_name = path
        elif isinstance(module, QuantLayer):
            module.layer_name = path
