"""Model files of format version 1, brought to the present form.

In version 1 a batch norm that was taken for the successor of a layer was multiplied into the layer,
GCNConv holding the factor apart, and an identity stood in its place. Now it is a norm again: of
GCNConv's factor, or one that changes no bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.nn.norm import batch_norm_of


def upgrade(
    header: dict[str, Any], tensors: dict[str, Tensor], module: nn.Module, path: str | Path
) -> None:
    """Gives ``header`` and ``tensors`` the form of version 2, in place.

    Args:
        header: Of the file.
        tensors: Of the file.
        module: Its float module.
        path: The file, for messages.

    Raises:
        ConfigError: If the module has no such norm.
        FileFormatError: If a convolution's norm cannot be told, or has no tensors.
    """
    folded = list(header.pop("folded"))
    layer_of = {}
    for name, entry in header["layers"].items():
        if entry["class"] == "QuantGCNConv" and entry["config"].pop("folded", False):
            layer_of[_norm_after(name, folded, path)] = name
    header["norms"] = []
    for name in folded:
        inner, norm = batch_norm_of(module, name)
        if norm is None:
            raise ConfigError(
                f"{path}: the module has no batch norm {name!r}, which became part of the layer "
                "before it"
            )
        # Adding -0 changes no number, not even 0's sign.
        nothing = torch.full((norm.num_features,), -0.0, device="cpu")
        scale, shift = torch.ones_like(nothing), nothing
        if name in layer_of:
            bias, out_scale = f"{layer_of[name]}.bias", f"{layer_of[name]}.out_scale"
            if not {bias, out_scale} <= tensors.keys():
                raise FileFormatError(f"{path}: layer {layer_of[name]!r} lacks its bias or scale")
            scale, shift = tensors.pop(out_scale), tensors[bias]
            tensors[bias] = nothing.clone()
        tensors[f"{inner}.weight"], tensors[f"{inner}.bias"] = scale, shift
        header["norms"].append(inner)
    if folded:
        _mark_weights(header, tensors)


def _mark_weights(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Says which weights have scales that were multiplied with a norm's, and may be negative."""
    for name, entry in header["layers"].items():
        for site, config in entry["sites"].items():
            scale = tensors.get(f"{name}.{site}.scale".lstrip("."))
            if "kind" not in config and scale is not None and bool((scale < 0).any()):
                config["folded"] = True


def _norm_after(layer: str, folded: list[str], path: str | Path) -> str:
    """The norm of a convolution: ``norms.i`` of ``convs.i``, or the next one of a sequence."""
    parent, _, place = layer.rpartition(".")
    found = [f"{parent.removesuffix('convs')}norms.{place}"] if parent.endswith("convs") else []
    if place.isdigit():
        found.append(f"{parent}.{int(place) + 1}" if parent else str(int(place) + 1))
    for name in found:
        if name in folded:
            return name
    raise FileFormatError(
        f"{path} has format version 1 and no name for the batch norm in layer {layer!r}: convert "
        "and save the model again"
    )
