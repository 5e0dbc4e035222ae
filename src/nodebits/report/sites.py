"""The sites of a packed model, read from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodebits.core.errors import NodebitsError
from nodebits.engine.sites import RowQuantizer
from nodebits.plan.plan import Plan
from nodebits.plan.trim import steps_of_all
from nodebits.runtime import PackedModel, load
from nodebits.runtime.account import SiteAccount, float_weights, weight_sites
from nodebits.runtime.float_layers import float_layers

# Attribute names of weights are chosen for the code; these are the names of the field.
_SITE_NAMES = {"quantized_weight": "weight", "att_weight": "attention vectors"}


class NoSuchModelError(NodebitsError, FileNotFoundError):
    """A model file that is not there."""


def open_model(path: Path, allow: Sequence[str] = ()) -> PackedModel:
    """Loads a model file.

    Args:
        path: Of the file.
        allow: Modules from which its class may be imported.

    Raises:
        NoSuchModelError: There is none, or it cannot be opened.
        FileFormatError: It is foreign, truncated or damaged.
    """
    try:
        with open(path, "rb"):  # a name with a null byte is a ValueError
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NoSuchModelError(
            f"there is no model file {str(path)!r} ({reason}); nodebits quantize writes "
            "model.safetensors"
        ) from error
    return load(path, allow=allow)


def describe_file(path: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Returns sites, widths and bytes of a model file, and what is float in it.

    Activations have a width and a scale, but no size before there is a graph.
    """
    packed = open_model(path, allow)
    floats = float_weights(packed.module)
    quantized = sum(site.bytes + site.scale_bytes for site in weight_sites(packed.module))
    return {
        "file_bytes": path.stat().st_size,
        "weight_bytes": quantized + sum(value.bytes for value in floats),
        "quantized_weight_bytes": quantized,
        "model": None if packed.spec is None else packed.spec.to_json(),
        "metadata": packed.metadata,
        "sites": sites_of(packed),
        "float_layers": float_layers(packed.module),
        "float_weights": [plain_site(value) for value in floats],
        "plan": describe_plan(packed.plan()),
    }


def sites_of(packed: PackedModel) -> list[dict[str, Any]]:
    """Returns sites and widths of a model in the order of its layers; of weights their bytes."""
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
    return sites


def describe_plan(plan: Plan | str) -> dict[str, Any]:
    """Returns the steps, or the reason why there is no plan.

    ``python`` are those that Python runs, ``of_all`` those for which ``predict_nodes`` computes all
    rows of a sample.
    """
    if isinstance(plan, str):
        return {"steps": [], "python": [], "of_all": [], "reason": plan}
    names = {"steps": plan.steps, "python": plan.leaves, "of_all": steps_of_all(plan)}
    return {**names, "reason": ""}


def plain_site(site: SiteAccount) -> dict[str, Any]:
    """Returns a site as plain data, under the field's name."""
    return {**asdict(site), "site": _SITE_NAMES.get(site.site, site.site)}


def _is_idle(name: str, module: RowQuantizer) -> bool:
    """Whether a site was switched off or saw no data."""
    return module.granularity == "unused" or (module.bits is None and name.endswith("output"))
