"""Model files; their form is that of :mod:`nodebits.runtime.container`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.nn.layer import QuantLayer, layer_by_name, layer_for
from nodebits.nn.models import ModelSpec, build_model
from nodebits.nn.norm import QuantBatchNorm, batch_norm_of, swap_norm
from nodebits.nn.references import References
from nodebits.nn.swap import (
    avoid_fast_paths,
    carry_over,
    obstacle,
    parametrized_names,
    replace_children,
    replaced_method,
)
from nodebits.nn.wrappers import copy_module, unwrap, unwrap_children
from nodebits.runtime import container
from nodebits.runtime.convert import name_sites
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.validate import (
    blank,
    check_contents,
    check_layers,
    check_loaded,
    check_tensors,
)
from nodebits.runtime.version1 import upgrade


def save(model: PackedModel, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
    """Writes a packed model.

    Args:
        model: The model.
        path: File to write.
        metadata: JSON to keep with it.

    Raises:
        OSError: If the file cannot be written; an existing one is untouched.
        ConfigError: If the file could not be loaded again; an existing one is untouched.
    """
    contents: dict[str, Any] = {
        "model": None if model.spec is None else model.spec.to_json(),
        "module": type(model.module).__name__,
        "norms": model.folded,
        "layers": {
            name: {
                "class": type(layer).__name__,
                "config": layer.config(),
                "sites": layer.sites_config(),
            }
            for name, layer in model.module.named_modules()
            if isinstance(layer, QuantLayer)
        },
        "metadata": metadata or {},
    }
    tensors = _tensors(model.module)
    _check_loadable(model.module, contents, tensors)
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
        _fill(_install(copy_module(module, shared), header, "the file"), tensors, "the file")
    except ConfigError as error:
        raise ConfigError(
            f"not saved, since the file could not be loaded again: {error}"
        ) from error


def load(path: str | Path, model: nn.Module | None = None) -> PackedModel:
    """Reads a packed model.

    Args:
        path: A file written by :meth:`PackedModel.save`.
        model: The float module that was prepared, for models that are not named ones; it is not
            changed.

    Returns:
        A model that computes the same bits as the saved one.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated or damaged.
        FileVersionError: If a newer version wrote it.
        ConfigError: If ``model`` is needed, or does not fit the file.
    """
    header, tensors = container.read(path, container.MODEL)
    check_contents(header, tensors, path)
    spec = None if header["model"] is None else ModelSpec.from_json(header["model"])
    if model is None and spec is None:
        raise ConfigError(
            f"{path} holds a module of the user's own class {header['module']!r}: pass the float "
            "module, nodebits.load(path, model=...)"
        )
    if header["version"] > 1:
        check_layers(header, path)
    with blank():
        if model is None:
            assert spec is not None
            module = _built(spec, path)
        else:
            module = copy_module(unwrap(model))
        unwrap_children(module)
    if header["version"] == 1:
        upgrade(header, tensors, module, path)
        check_layers(header, path)
    with blank():
        module = _install(module, header, path)
    check_tensors(module, tensors, path)
    _fill(module, tensors, path)
    check_loaded(module, path)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    name_sites(module)
    packed = PackedModel(module, spec)
    packed.metadata = header["metadata"]
    return packed


def _built(spec: ModelSpec, path: str | Path) -> nn.Module:
    try:
        return build_model(spec)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, KeyError) as error:
        raise FileFormatError(f"{path}: header.model makes no model: {error}") from error


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Puts the file's tensors into ``module``."""
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the module: {error}") from error


def _install(module: nn.Module, header: dict[str, Any], path: str | Path) -> nn.Module:
    """Puts the file's layers in place of their float twins, children before parents."""
    layers = header["layers"]
    new_of: dict[nn.Module, nn.Module] = {}
    for name in sorted(layers, key=lambda n: -n.count(".") if n else 1):
        entry = layers[name]
        try:
            twin = module.get_submodule(name)
            layer = _layer(twin, entry, twin in new_of.values())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: layer {name!r} ({entry.get('class')}) does not fit the module: {error}"
            ) from error
        new_of[twin] = layer
        replace_children(module, {twin: layer})
        module = layer if module is twin else module
    References(new_of).redirect(module)
    avoid_fast_paths(module)
    for name in header["norms"]:
        norm = batch_norm_of(module, name)[1]
        if norm is None:
            raise ConfigError(f"{path}: the module has no batch norm {name!r}, which the file has")
        swap_norm(norm)
        swap_norm(module.get_submodule(name.rpartition(".")[0]))
        if isinstance(norm, QuantBatchNorm):
            norm.freeze()
    return module


def _layer(twin: nn.Module, entry: dict[str, Any], taken: bool) -> QuantLayer:
    """The layer of one entry, built for the module that it stands in for."""
    cls = layer_by_name(entry["class"])
    fitting = layer_for(twin) or type(twin)
    if not issubclass(fitting, cls):
        raise ConfigError(
            f"it is a {type(twin).__name__} in the module, a {cls.layer_type} in the file"
        )
    if taken:
        raise ConfigError("the module has it under another name too, the file has two layers")
    reason = None if isinstance(twin, QuantLayer) else replaced_method(twin) or obstacle(twin)
    if reason is not None:
        raise ConfigError(reason)
    layer = fitting.build(entry["config"])
    layer.adopt(twin)
    layer.load_sites(entry["sites"])
    carry_over(twin, layer)
    return layer
