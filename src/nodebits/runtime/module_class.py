"""The class of a model in a file: an import path and arguments of its constructor, both data.

A file runs nothing: :func:`build` imports only what lies in PyG's own layers and models, or in
packages that the caller names, and calls nothing but a class that derives from ``nn.Module``.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.core.file_fields import Object, Text, check_fields, shown
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import QuantBatchNorm

# What may be imported without being asked: their constructors take numbers and names.
TRUSTED = ("torch_geometric.nn.models", "torch_geometric.nn.conv")
# A number beyond must be a size that the file holds: constructors make loops of smaller ones.
MOST_ARGUMENT = 10_000
# Attributes that preparing a layer changes.
_OURS = ("fuse", "training")


def described(module: nn.Module, arguments: Mapping[str, Any] | None = None) -> Any:
    """What a file says of the class of a model, or None where that cannot be told.

    Args:
        module: The frozen model.
        arguments: Of the constructor; by default attributes of the same names are taken, and kept
            only if they make the same module again.

    Raises:
        ConfigError: If ``arguments`` are given and make another module, or hold what is no data.
    """
    kind: type[nn.Module] = module.float_type if isinstance(module, QuantLayer) else type(module)
    if arguments is not None:
        try:
            return _entry(kind, arguments, module)
        except Exception as error:
            raise ConfigError(
                f"arguments {dict(arguments)!r} of {kind.__qualname__} cannot be kept: {error}"
            ) from error
    for candidate in _candidates(kind, module):
        try:
            return _entry(kind, candidate, module)
        except Exception:  # a constructor may raise anything
            continue
    return None


def _entry(
    kind: type[nn.Module], arguments: Mapping[str, Any], module: nn.Module
) -> dict[str, Any]:
    """Raises ConfigError, or what the constructor does, if they do not make the same module."""
    if "<" in kind.__qualname__:
        raise ConfigError("it is defined inside a function: no file can name it")
    plain = {name: _encoded(value, name) for name, value in arguments.items()}
    with torch.device("meta"):
        made = kind(**{name: _decoded(value) for name, value in plain.items()})
    difference = _difference(made, module)
    if difference is not None:
        raise ConfigError(f"they make a module whose {difference}")
    return {"module": kind.__module__, "name": kind.__qualname__, "arguments": plain}


def build(
    header: Mapping[str, Any], sizes: Iterable[int], allow: Sequence[str], path: str | Path
) -> nn.Module:
    """The float module that a file describes, without memory for its values.

    Args:
        header: Of the file; its ``class`` is what :func:`described` returned.
        sizes: Of the file's tensors along their axes.
        allow: Packages and modules whose classes may be imported, beside :data:`TRUSTED`.
        path: Of the file, for messages.

    Raises:
        ConfigError: If the class is not allowed, or cannot be imported or made.
        FileFormatError: If the description is none.
    """
    entry = header["class"]
    check_fields(
        entry,
        {"module": Text(), "name": Text(), "arguments": Object()},
        f"{path}: header.class",
        others=False,
    )
    home, name = entry["module"], entry["name"]
    arguments = {key: _decoded(value) for key, value in entry["arguments"].items()}
    _check_numbers(arguments, {*sizes, *_numbers(header["layers"])}, path)
    if not any(home == known or home.startswith(f"{known}.") for known in (*TRUSTED, *allow)):
        raise ConfigError(
            f"{path} holds a module of the user's own class {name!r} of {home!r}: pass the float "
            f"module, nodebits.load(path, model=...), or let the class be imported, "
            f"nodebits.load(path, allow=[{home!r}])"
        )
    kind = _imported(home, name, path)
    try:
        with torch.device("meta"):
            return kind(**arguments)
    except Exception as error:
        raise ConfigError(f"{path}: {home}.{name} is not made by {arguments}: {error}") from error


def _imported(home: str, name: str, path: str | Path) -> type[nn.Module]:
    if not all(part.isidentifier() for part in (*home.split("."), *name.split("."))):
        raise FileFormatError(f"{path}: header.class names {shown(f'{home}.{name}')}, no class")
    try:
        found: Any = importlib.import_module(home)
        for part in name.split("."):
            found = vars(found)[part]
    except (ImportError, KeyError) as error:
        raise ConfigError(f"{path}: there is no {name!r} in {home!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)) or found.__module__ != home:
        raise FileFormatError(f"{path}: {home}.{name} is no class of modules defined there")
    return found


def _check_numbers(value: Any, sizes: set[int], path: str | Path) -> None:
    for number in _numbers(value):
        if abs(number) > MOST_ARGUMENT and number not in sizes:
            raise FileFormatError(
                f"{path}: header.class.arguments holds {number}, which is no size of its tensors"
            )


def _numbers(value: Any) -> Iterator[int]:
    """The integers in plain data."""
    if isinstance(value, int):
        yield int(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)


# --- plain data ---


def _encoded(value: Any, where: str) -> Any:
    """``value`` as JSON that says what was a tuple.

    Raises:
        ConfigError: If it is no plain data.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list):
        return [_encoded(part, where) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(part, where) for part in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encoded(part, where) for key, part in value.items()}}
    raise ConfigError(f"{where} is a {type(value).__name__}: files hold numbers, text and lists")


def _decoded(value: Any) -> Any:
    """Raises FileFormatError if ``value`` is not what :func:`_encoded` makes."""
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        if value.keys() == {"tuple"} and isinstance(value["tuple"], list):
            return tuple(_decoded(part) for part in value["tuple"])
        if value.keys() == {"dict"} and isinstance(value["dict"], dict):
            return {key: _decoded(part) for key, part in value["dict"].items()}
        raise FileFormatError(f"header.class.arguments holds {shown(value)}, which is no argument")
    return value


# --- arguments told from attributes ---


def _candidates(kind: type[nn.Module], module: nn.Module) -> Iterator[dict[str, Any]]:
    """Arguments that the constructor may have been called with, the likeliest first."""
    for named in (True, False):
        found = _attributes(kind, module, named)
        yield found
        # PyG's basic models pass on what they do not know to every convolution.
        convs = getattr(module, "convs", None)
        if isinstance(convs, nn.ModuleList) and len(convs):
            conv = convs[0]
            own = conv.float_type if isinstance(conv, QuantLayer) else type(conv)
            passed = _attributes(own, conv, named)
            known = {*inspect.signature(kind.__init__).parameters, "bias"}
            yield {**{n: v for n, v in passed.items() if n not in known}, **found}


def _attributes(kind: type[nn.Module], module: nn.Module, named: bool) -> dict[str, Any]:
    """Attributes of the names of the constructor's arguments that are plain data.

    Args:
        kind: The class.
        module: An instance, or what took its place.
        named: Whether a module may stand for the name of its class, as PyG makes activations.
    """
    found = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(module, name, parameter.default)
        if isinstance(value, nn.Module) and hasattr(module, f"{name}_mode"):
            value = getattr(module, f"{name}_mode")  # so PyG keeps which jumping knowledge it is
        elif isinstance(value, nn.Dropout):
            value = value.p
        elif isinstance(value, nn.Module) and named:
            value = type(value).__name__
        try:
            _encoded(value, name)
        except ConfigError:
            continue
        found[name] = value
    return found


def _difference(made: nn.Module, module: nn.Module) -> str | None:
    """How a new float module differs from that of a model with sites; None where it does not."""
    layers, twins = dict(module.named_modules()), dict(made.named_modules())
    for path, child in twins.items():
        twin = layers.get(path)
        if twin is None:
            if _inside_layer(path, layers):
                continue  # what a layer of integer sums has no use for
            return f"{path!r} ({type(child).__name__}) the model does not have"
        kind = twin.float_type if isinstance(twin, QuantLayer) else type(twin)
        if kind is not type(child) and not isinstance(twin, type(child)):
            return f"{path or 'class'!r} is a {type(child).__name__}, not a {kind.__name__}"
        if isinstance(twin, QuantBatchNorm) and twin.frozen:
            continue  # a scale and a shift are left of it
        for name, value in vars(child).items():
            if not name.startswith("_") and name not in _OURS and hasattr(twin, name):
                other = getattr(twin, name)
                if not _same(value, other):
                    return f"{f'{path}.{name}'.lstrip('.')!r} is {value!r}, not {other!r}"
    missing = (p for p in layers if p not in twins and not _inside_layer(p, layers))
    return next((f"{path!r} is missing" for path in missing), None)


def _inside_layer(path: str, layers: Mapping[str, nn.Module]) -> bool:
    while path:
        path = path.rpartition(".")[0]
        if isinstance(layers.get(path), QuantLayer):
            return True
    return False


def _same(value: Any, other: Any) -> bool:
    """Whether an attribute is what it was, as far as that can be told."""
    if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
        return value.shape == other.shape
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return value is other
    if isinstance(value, bool | int | float | str | list | tuple | dict | None):
        return type(value) is type(other) and value == other
    return type(value) is type(other)
