"""Reads model files; :mod:`nodebits.runtime.model_file` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.models import ModelSpec, build_model
from nodebits.nn.wrappers import copy_module, unwrap, unwrap_children
from nodebits.runtime import container
from nodebits.runtime.install import fill, install
from nodebits.runtime.module_class import build
from nodebits.runtime.moved import without_constraint
from nodebits.runtime.names import name_sites
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.plan_file import read_plan
from nodebits.runtime.validate import (
    blank,
    check_contents,
    check_layers,
    check_loaded,
    check_tensors,
)
from nodebits.runtime.version1 import upgrade


def load(
    path: str | Path, model: nn.Module | None = None, *, allow: Sequence[str] = ()
) -> PackedModel:
    """Reads a packed model.

    A named model and one of PyG's own classes are made from what the file says of them; for other
    classes give ``model`` or ``allow``. Nothing in a file is run.

    Args:
        path: A file written by :meth:`PackedModel.save`.
        model: A float module like the one that was prepared; it is not changed.
        allow: Packages or modules, such as ``"my_pkg.models"``, from which a class that the file
            names may be imported. Importing runs what they hold.

    Returns:
        A model that computes the same bits as the saved one.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated or damaged.
        FileVersionError: If a newer version wrote it.
        ConfigError: If ``model`` or ``allow`` is needed, or does not fit the file.
    """
    if isinstance(allow, str):
        raise ConfigError(f"allow is {allow!r}: give a list of packages, allow=[{allow!r}]")
    header, tensors = container.read(path, container.MODEL)
    plan = read_plan(header, tensors, path)
    check_contents(header, tensors, path)
    spec = None if header["model"] is None else ModelSpec.from_json(header["model"])
    if model is None and spec is None and header.get("class") is None:
        raise ConfigError(
            f"{path} holds a module of the user's own class {header['module']!r}, and not what "
            "makes it: pass the float module, nodebits.load(path, model=...)"
        )
    if spec is not None and spec.name == "smp":
        without_constraint(header, tensors, path)
    if header["version"] > 1:
        check_layers(header, path)
    with blank():
        if model is not None:
            module = copy_module(unwrap(model))
        elif spec is not None:
            module = _built(spec, path)
        else:
            sizes = (size for tensor in tensors.values() for size in tensor.shape)
            module = build(header, sizes, allow, path)
        unwrap_children(module)
    if header["version"] == 1:
        upgrade(header, tensors, module, path)
        check_layers(header, path)
    with blank():
        module = install(module, header, path)
    check_tensors(module, tensors, path)
    fill(module, tensors, path)
    check_loaded(module, path)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    name_sites(module)
    packed = PackedModel(module, spec)
    packed.metadata = header["metadata"]
    packed.keep_plan(plan)
    return packed


def _built(spec: ModelSpec, path: str | Path) -> nn.Module:
    try:
        return build_model(spec)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, KeyError) as error:
        raise FileFormatError(f"{path}: header.model makes no model: {error}") from error
