"""Model files; their form is that of :mod:`nodebits.runtime.container`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NodebitsError,
    UnknownNameError,
)
from nodebits.nn.layer import QuantLayer, layer_by_name, layer_for
from nodebits.nn.models import ModelSpec, build_model
from nodebits.runtime import container
from nodebits.runtime.convert import name_sites
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.validate import blank, check_loaded, check_model_header, check_tensors


def save(model: PackedModel, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
    """Writes a packed model.

    Args:
        model: The model.
        path: File to write.
        metadata: JSON to keep with it.

    Raises:
        OSError: If the file cannot be written; an existing one is untouched.
    """
    contents = {
        "model": None if model.spec is None else model.spec.to_json(),
        "module": type(model.module).__name__,
        "folded": model.folded,
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
    container.write(path, container.MODEL, contents, model.module.state_dict())


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
    return from_parts(header, tensors, path, model)


def from_parts(
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    path: str | Path,
    model: nn.Module | None = None,
) -> PackedModel:
    """:func:`load` of what was read already."""
    import copy

    try:
        check_model_header(header, tensors, path)
    except (UnknownNameError, FileFormatError):
        raise
    except NodebitsError as error:
        raise FileFormatError(f"{path}: {error}") from error
    spec = None if header["model"] is None else ModelSpec.from_json(header["model"])
    if model is None and spec is None:
        raise ConfigError(
            f"{path} holds a module of the user's own class {header['module']!r}: pass the float "
            "module, "
            "nodebits.load(path, model=...)"
        )
    with blank():
        if model is None:
            assert spec is not None
            module = _built(spec, path)
        else:
            module = copy.deepcopy(model)
        module = _install(module, header, path)
    check_tensors(module, tensors, path)
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the module: {error}") from error
    check_loaded(module, header, path)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    name_sites(module)
    packed = PackedModel(module, spec, list(header["folded"]))
    packed.metadata = header["metadata"]
    return packed


def _built(spec: ModelSpec, path: str | Path) -> nn.Module:
    try:
        return build_model(spec)
    except UnknownNameError:
        raise
    except (ValueError, TypeError, ArithmeticError, RuntimeError, KeyError) as error:
        raise FileFormatError(f"{path}: header.model makes no model: {error}") from error


def _install(module: nn.Module, header: dict[str, Any], path: str | Path) -> nn.Module:
    """Puts the file's layers in place of their float twins, children before parents."""
    layers = header["layers"]
    for name in sorted(layers, key=lambda n: -n.count(".") if n else 1):
        entry = layers[name]
        try:
            twin = module.get_submodule(name)
            cls = layer_by_name(entry["class"])
            if layer_for(twin) is not cls and type(twin) is not cls:
                raise ConfigError(
                    f"it is a {type(twin).__name__} in the module, a {cls.layer_type} in the file"
                )
            layer = cls.build(entry["config"])
            layer.adopt(twin)
            layer.load_sites(entry["sites"])
        except UnknownNameError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: layer {name!r} ({entry.get('class')}) does not fit the module: {error}"
            ) from error
        module = _replace(module, name, layer)
    for name in header["folded"]:
        try:
            module.get_submodule(name)
        except AttributeError as error:
            raise ConfigError(
                f"{path}: the module has no {name!r}, a batch norm that became part of the layer "
                f"before it: {error}"
            ) from error
        module = _replace(module, name, nn.Identity())
    return module


def _replace(module: nn.Module, name: str, new: nn.Module) -> nn.Module:
    if not name:
        return new
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
    return module
