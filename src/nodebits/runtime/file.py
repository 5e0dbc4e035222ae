"""Model files: safetensors with one JSON header, written atomically, checked bit by bit.

The one metadata key ``nodebits`` holds a SHA-256 and, after a space, the JSON that it is the digest
of: format version, model, layers, sites, a CRC-32 per tensor over dtype, shape and bytes. A flipped
bit anywhere changes a checksum or breaks the structure; both are reported as
:class:`FileFormatError`. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    FileVersionError,
    UnknownNameError,
)
from nodebits.core.files import write_atomically
from nodebits.nn.layer import QuantLayer, layer_by_name, layer_for
from nodebits.nn.models import ModelSpec, build_model
from nodebits.runtime.convert import name_sites
from nodebits.runtime.packed import PackedModel

FORMAT_VERSION = 1


def _checksum(tensor: Tensor) -> int:
    shape = f"{tensor.dtype}{list(tensor.shape)}".encode()
    data = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data
    return zlib.crc32(data, zlib.crc32(shape))


def save(model: PackedModel, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
    """Writes a packed model.

    Args:
        model: The model.
        path: File to write.
        metadata: JSON to keep with it.

    Raises:
        OSError: If the file cannot be written; an existing one is untouched.
    """
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.module.state_dict().items()
    }
    header = {
        "format": "nodebits",
        "version": FORMAT_VERSION,
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
        "checksums": {name: _checksum(value) for name, value in tensors.items()},
        "metadata": metadata or {},
    }
    text = json.dumps(header, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    # One key: safetensors writes several in any order, and equal models should be equal files.
    data = safetensors.torch.save(tensors, {"nodebits": f"{digest} {text}"})
    write_atomically(path, data)


def read_header(data: bytes, path: str | Path = "the file") -> dict[str, Any]:
    """Parses and verifies the JSON header of a model file.

    Raises:
        FileFormatError: If the file is foreign, truncated or damaged.
        FileVersionError: If it was written by a newer version.
    """
    if len(data) < 8:
        raise FileFormatError(f"{path} has {len(data)} bytes: too short for a model file")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise FileFormatError(
            f"{path} is truncated or not a safetensors file: its header should have {length} "
            f"bytes, {len(data) - 8} follow"
        )
    try:
        outer = json.loads(data[8 : 8 + length])
        metadata = outer["__metadata__"]
        digest, _, text = metadata["nodebits"].partition(" ")
        # A damaged escape can decode to half a surrogate pair, which does not encode.
        found = hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is not a nodebits model, or its header is damaged ({type(error).__name__}: "
            f"{error})"
        ) from error
    if set(metadata) != {"nodebits"}:
        raise FileFormatError(f"{path}: unexpected metadata; the header is damaged")
    if found != digest:
        raise FileFormatError(f"{path}: the header's checksum does not match; the file is damaged")
    header: dict[str, Any] = json.loads(text)
    version = header.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FileVersionError(
            f"{path} has format version {version}, this nodebits reads up to {FORMAT_VERSION}: "
            "upgrade nodebits"
        )
    return header


def _tensors(data: bytes, header: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error
    expected = header["checksums"]
    if set(tensors) != set(expected):
        names = sorted(set(tensors) ^ set(expected))
        raise FileFormatError(f"{path} is damaged: tensor {names[0]!r} is missing or unexpected")
    for name, tensor in tensors.items():
        if _checksum(tensor) != expected[name]:
            raise FileFormatError(
                f"{path} is damaged: the checksum of tensor {name!r} does not match"
            )
    return tensors


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
    import copy

    data = Path(path).read_bytes()
    header = read_header(data, path)
    tensors = _tensors(data, header, path)
    spec = None if header["model"] is None else ModelSpec.from_json(header["model"])
    if model is None and spec is None:
        raise ConfigError(
            f"{path} holds a module of the user's own class {header['module']!r}: pass the float "
            "module, "
            "nodebits.load(path, model=...)"
        )
    module = build_model(spec) if model is None and spec is not None else copy.deepcopy(model)
    assert module is not None
    module = _install(module, header, path)
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the module: {error}") from error
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    name_sites(module)
    packed = PackedModel(module, spec, list(header["folded"]))
    packed.metadata = header["metadata"]
    return packed


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
