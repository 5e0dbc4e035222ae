"""The sites of a packed model, read from the model itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from nodebits.core.errors import NodebitsError
from nodebits.nn.layer import QuantLayer
from nodebits.nn.quantizers.rows import RowQuantizer
from nodebits.runtime import PackedModel, load
from nodebits.runtime.account import SiteAccount, weight_sites

# Attribute names of weights are chosen for the code; these are the names of the field.
_SITE_NAMES = {"quantized_weight": "weight", "att_weight": "attention vectors"}


class NoSuchModelError(NodebitsError, FileNotFoundError):
    """A model file that is not there."""


def open_model(path: Path) -> PackedModel:
    """Loads a model file.

    Raises:
        NoSuchModelError: There is none.
        FileFormatError: It is foreign, truncated or damaged.
    """
    try:
        return load(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NoSuchModelError(
            f"there is no model file {path}; nodebits quantize writes model.safetensors"
        ) from error


def describe_file(path: Path) -> dict[str, Any]:
    """Returns sites, widths and bytes of a model file, and what is float in it.

    Activations have a width and a scale, but no size before there is a graph.
    """
    packed = open_model(path)
    weights = {f"{site.layer}.{site.site}": site for site in weight_sites(packed.module)}
    sites: list[dict[str, Any]] = []
    for name, module in packed.module.named_modules():
        if name in weights:
            sites.append(plain_site(weights[name]))
        elif isinstance(module, RowQuantizer) and not _is_idle(name, module):
            layer, _, site = name.rpartition(".")
            sites.append(
                {
                    "layer": layer,
                    "site": site,
                    "bits": module.bits,
                    "granularity": module.granularity,
                }
            )
    return {
        "file_bytes": path.stat().st_size,
        "weight_bytes": sum(site.bytes + site.scale_bytes for site in weights.values()),
        "model": None if packed.spec is None else packed.spec.to_json(),
        "metadata": packed.metadata,
        "sites": sites,
        "float_modules": float_modules(packed.module),
    }


def float_modules(module: nn.Module) -> list[dict[str, Any]]:
    """Returns the modules outside of quantized layers that hold values, all of them float.

    Args:
        module: A packed model's module.

    Returns:
        ``module`` (its path), ``type`` and ``values``, the number of its own floats.
    """
    inside = {id(m) for m in module.modules() if isinstance(m, QuantLayer) for m in m.modules()}
    found = []
    for path, child in module.named_modules():
        own = (*child.parameters(recurse=False), *child.buffers(recurse=False))
        values = sum(value.numel() for value in own if value.is_floating_point())
        if values and id(child) not in inside:
            found.append({"module": path, "type": type(child).__name__, "values": values})
    return found


def plain_site(site: SiteAccount) -> dict[str, Any]:
    """Returns a site as plain data, under the field's name."""
    return {**asdict(site), "site": _SITE_NAMES.get(site.site, site.site)}


def _is_idle(name: str, module: RowQuantizer) -> bool:
    """Whether a site was switched off or saw no data."""
    return module.granularity == "unused" or (module.bits is None and name.endswith("output"))
