"""Writes model files; their form is that of :mod:`nodebits.runtime.container`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.models import ModelSpec
from nodebits.nn.evaluation import type_of
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import reevaluated
from nodebits.nn.swap import parametrized_names, reparametrized
from nodebits.nn.wrappers import copy_module
from nodebits.plan.plan import Plan
from nodebits.runtime import container
from nodebits.runtime.install import fill, install
from nodebits.runtime.module_class import described
from nodebits.runtime.plan_file import with_names

_LONGEST_REASON = 500


def write_model(
    path: str | Path,
    module: nn.Module,
    spec: ModelSpec | None,
    norms: list[str],
    metadata: dict[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    plan: Plan | str | None = None,
) -> None:
    """Writes a frozen model.

    Args:
        path: File to write.
        module: The model.
        spec: What builds its float twin, of a named one.
        norms: Paths of the batch norms that are computed as an affine.
        metadata: JSON to keep with it.
        arguments: Of the constructor of the user's own class, see
            :func:`nodebits.runtime.module_class.described`.
        plan: Its forward, for those who run the file without Python; or why there is none.

    Raises:
        OSError: If the file cannot be written; an existing one is untouched.
        ConfigError: If the file could not be loaded again; an existing one is untouched.
    """
    contents: dict[str, Any] = {
        "model": None if spec is None else spec.to_json(),
        "module": (
            module.float_type if isinstance(module, QuantLayer) else type_of(module)
        ).__name__,
        "norms": norms,
        "layers": {
            name: {
                "class": type(layer).__name__,
                "config": layer.config(),
                "sites": layer.sites_config(),
            }
            for name, layer in module.named_modules()
            if isinstance(layer, QuantLayer)
        },
        "metadata": metadata or {},
    }
    ordered = reevaluated(module)
    if ordered:
        contents["ordered"] = ordered
    if spec is None:
        contents["class"] = described(module, arguments)
    tensors = _tensors(module)
    _check_loadable(module, contents, tensors)
    if isinstance(plan, str):
        contents["no_plan"] = plan[:_LONGEST_REASON]
    elif plan is not None:
        contents["plan"], more = with_names(plan, tensors)
        tensors.update(more)
    container.write(path, container.MODEL, contents, tensors)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state of a model, under every name that its tensors have.

    Raises:
        ConfigError: If a submodule keeps something else in its state.
    """
    # PyG's Linear also writes a weight that is computed by a parametrization, and does not read it.
    computed = {
        f"{path}.{name}" if path else name
        for path, child in module.named_modules(remove_duplicate=False)
        for name in parametrized_names(child)
    }
    tensors = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{name!r} of the model's state is a {type(value).__name__}: a file holds tensors. "
                "Keep it elsewhere, such as in save(..., metadata=...)"
            )
        if name not in computed:
            tensors[name] = value
    return tensors


def _check_loadable(
    module: nn.Module, contents: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Installs the file's contents in a copy of the model that shares its tensors.

    Raises:
        ConfigError: If that fails.
    """
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    header = json.loads(json.dumps(contents))
    try:
        fill(install(copy_module(module, shared), header, "the file"), tensors, "the file")
    except ConfigError as error:
        found = ((path, reparametrized(layer)) for path, layer in module.named_modules())
        cures = "".join(f". Layer {path!r}: {why}" for path, why in found if why)
        raise ConfigError(
            f"not saved, since the file could not be loaded again: {error}{cures}"
        ) from error
