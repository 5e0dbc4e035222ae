"""LoRAP on top of any method: which layers get a prompt, and which quantizers stand in it.

A prompt is small beside its layer, so its sites have the width of attention vectors
(``attention_bits``) whatever the method is, with learned scales.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import nn
from torch_geometric.nn import MessagePassing

from nodebits.core.errors import ConfigError, UnsupportedLayerWarning
from nodebits.methods.base import QuantConfig
from nodebits.nn.conv import QuantConv
from nodebits.nn.layer import QuantLayer
from nodebits.nn.placement import SiteInfo
from nodebits.nn.prompt import AggregationPrompt
from nodebits.nn.quantizers import (
    FloatQuantizer,
    FloatWeightQuantizer,
    LearnedQuantizer,
    LearnedWeightQuantizer,
    Quantizer,
    WeightQuantizer,
)


def add_prompt(module: nn.Module, cls: type[QuantLayer], path: str, config: QuantConfig) -> None:
    """Gives a float convolution the prompt that its quantized form will read, if that takes one.

    Args:
        module: The convolution.
        cls: Its quantized form.
        path: Its path in the model.
        config: The method, whose ``prompts`` is not 0.
    """
    if not issubclass(cls, QuantConv) or cls.unsupported(module) is not None:
        return
    channels = cls.aggregated_channels(module)
    if channels:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        rank = min(config.prompt_rank, config.prompts, channels)
        module.prompt = AggregationPrompt(channels, config.prompts, rank, path, device)


def check_prompts(root: nn.Module) -> None:
    """Warns of convolutions without a prompt.

    Raises:
        ConfigError: If none has one.
    """
    layers = {
        path: module
        for path, module in root.named_modules()
        if isinstance(module, QuantLayer) and isinstance(module, MessagePassing)
    }
    bare = [path for path, layer in layers.items() if "prompt" not in layer._modules]
    if len(bare) == len(layers):
        raise ConfigError(
            "prompts are added to sums over neighbours, and no layer of the model takes them: "
            "leave out prompts (or +lorap)"
        )
    for path in bare:
        warnings.warn(
            f"layer {path!r} ({layers[path].layer_type}) gets no prompt: its sums are not those of "
            "one linear map or attention",
            UnsupportedLayerWarning,
            stacklevel=3,
        )


def prompt_rows(config: QuantConfig, site: SiteInfo) -> Quantizer:
    """The quantizer of rows within a prompt."""
    bits = _width(config, site)
    if bits is None or site.kind == "output":
        return FloatQuantizer()
    return LearnedQuantizer(bits)


def prompt_weight(config: QuantConfig, site: SiteInfo) -> WeightQuantizer:
    """The quantizer of a weight within a prompt."""
    bits = _width(config, site)
    if bits is None:
        return FloatWeightQuantizer()
    return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2)


def _width(config: QuantConfig, site: SiteInfo) -> int | None:
    return QuantConfig.bits_at(config, replace(site, kind="attention"))


__all__ = ["add_prompt", "check_prompts", "prompt_rows", "prompt_weight"]
