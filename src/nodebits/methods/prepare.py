"""Swapping supported layers for layers with sites, and calibrating them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from nodebits.core.errors import NothingToQuantizeError, UnsupportedLayerWarning
from nodebits.core.modes import evaluating
from nodebits.methods.base import QuantConfig
from nodebits.nn.layer import QuantLayer, layer_for, supported_layers
from nodebits.nn.norm import swap_norm
from nodebits.nn.quantizers import calibration


def prepare(model: nn.Module, config: QuantConfig, *, inplace: bool = False) -> nn.Module:
    """Swaps every supported layer of ``model`` for its form with sites.

    Parameters keep their values: a trained model is a warm start. Every module keeps its mode: a
    norm in evaluation stays there. Batch norms become :class:`nodebits.nn.norm.QuantBatchNorm`.
    Other layers with parameters that are not supported (other norms, embeddings and the like) stay
    in float; convolutions among them are named in a warning.

    Args:
        model: Float model that contains PyG convolutions or linears.
        config: Method and widths.
        inplace: Change ``model`` itself instead of a copy.

    Returns:
        The prepared model, to be trained or calibrated, then converted.

    Raises:
        NothingToQuantizeError: If no supported layer was found.

    Example:
        >>> prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4))
    """
    model = model if inplace else copy.deepcopy(model)
    swapped: list[str] = []
    root = _swap(model, "", config, swapped, {})
    if not swapped:
        raise NothingToQuantizeError(
            f"{type(model).__name__} has no layer that can be quantized. Supported: "
            f"{', '.join(supported_layers())}"
        )
    return root


def _swap(
    module: nn.Module,
    path: str,
    config: QuantConfig,
    swapped: list[str],
    done: dict[nn.Module, nn.Module],
) -> nn.Module:
    # named_children would give a module that two attributes share only once.
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        if child not in done:
            child_path = f"{path}.{name}" if path else name
            done[child] = _swap(child, child_path, config, swapped, done)
        if done[child] is not child:
            setattr(module, name, done[child])
    cls = layer_for(module)
    if cls is None:
        swap_norm(module)
        _warn_if_convolution(module, path)
        return module
    reason = cls.unsupported(module)
    if reason is not None:
        _warn(path, module, reason)
        return module
    layer = cls.from_float(module, path, config)
    layer.protection = config.protection()
    kept = set(module.modules())
    for part in layer.modules():
        if part not in kept:
            part.training = module.training
    swapped.append(path)
    return layer


def _warn_if_convolution(module: nn.Module, path: str) -> None:
    from torch_geometric.nn import MessagePassing

    if isinstance(module, MessagePassing) and not isinstance(module, QuantLayer):
        _warn(path, module, "it has no quantized form (its linears, if any, are quantized)")


def _warn(path: str, module: nn.Module, reason: str) -> None:
    warnings.warn(
        f"layer {path or 'model'!r} ({type(module).__name__}) stays in float: {reason}. "
        f"Supported: {', '.join(supported_layers())}",
        UnsupportedLayerWarning,
        stacklevel=4,
    )


@torch.no_grad()
def calibrate(model: nn.Module, *inputs: Any, **keywords: Any) -> None:
    """Runs ``model`` once in evaluation mode while its quantizers observe.

    Call it with one batch, or several times with different ones.

    Args:
        model: A prepared model.
        *inputs: What the model takes, ``x, edge_index`` as a rule.
        **keywords: Likewise.
    """
    with evaluating(model), calibration(model):
        model(*inputs, **keywords)
