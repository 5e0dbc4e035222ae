"""What a model file says, compared with what its classes allow and with what it holds.

A file may be correct to the last checksum and still not come from here. So nothing is built from it
before its options are known to be in range; what is built takes no memory until the tensors of the
file are known to fill it; and no value is used that no quantizer has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, FileFormatError, NodebitsError, UnknownNameError
from nodebits.core.file_fields import (
    ListOf,
    Optional,
    Options,
    Text,
    check_fields,
    check_object,
    shown,
)
from nodebits.engine.sites import RowQuantizer, row_fields, row_kinds
from nodebits.engine.weight import PackedWeight
from nodebits.models import ModelSpec
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import QuantBatchNorm
from nodebits.nn.registry import layer_by_name

_ENTRY = {"class", "config", "sites"}


def check_contents(header: dict[str, Any], tensors: dict[str, Tensor], path: str | Path) -> None:
    """Checks what a file of any version says, without its layers: what the module is.

    Raises:
        FileFormatError: Names the field.
    """
    where = f"{path}: header"
    fields: Options = {"module": Text()}
    if header["version"] == 1:
        fields = {**fields, "folded": ListOf(Text())}
    check_fields(header, fields, where, others=True)
    for key in ("layers", "metadata"):
        check_object(header.get(key), f"{where}.{key}")
    for name, entry in header["layers"].items():
        at = f"{where}.layers.{name}"
        if not _ENTRY <= check_object(entry, at).keys() or not isinstance(entry["class"], str):
            raise FileFormatError(f"{at} must have the fields {', '.join(sorted(_ENTRY))}")
        check_object(entry["config"], f"{at}.config")
        for site, config in check_object(entry["sites"], f"{at}.sites").items():
            check_object(config, f"{at}.sites.{site}")
    if "model" not in header:
        raise FileFormatError(f"{where} lacks the field 'model'")
    if header["model"] is None:
        return
    check_object(header["model"], f"{where}.model")
    try:
        spec = ModelSpec.from_json(header["model"])
    except NodebitsError as error:
        raise FileFormatError(f"{where}.model: {error}") from error
    # Every layer that a spec asks for has tensors of its own.
    if spec.num_layers > len(tensors):
        raise FileFormatError(
            f"{where}.model.num_layers is {spec.num_layers}, but the file has "
            f"{len(tensors)} tensors"
        )


def check_layers(header: dict[str, Any], path: str | Path) -> None:
    """Checks every layer of a model file's header, brought to the present version.

    Raises:
        FileFormatError: Names the field.
    """
    where = f"{path}: header"
    paths = ListOf(Text())
    fields: Options = {"norms": paths, "ordered": Optional(paths, absent=True)}
    check_fields(header, fields, where, others=True)
    for name, entry in header["layers"].items():
        at = f"{where}.layers.{name}"
        try:
            cls = layer_by_name(entry["class"])
        except UnknownNameError as error:
            raise FileFormatError(f"{at}.class: {error}") from error
        check_fields(entry["config"], cls.options, f"{at}.config")
        for site, config in entry["sites"].items():
            _check_site(cls, site, config, f"{at}.sites.{site}")


def _check_site(cls: type[QuantLayer], name: str, config: Any, where: str) -> None:
    taken = name != "message" and hasattr(cls, name)  # a property of convolutions, see there
    if not name.isidentifier() or taken or name in nn.Module().__dict__:
        raise FileFormatError(f"{where}: {shown(name)} is no name of a site")
    kind = config.get("kind")
    if kind is None:
        check_fields(config, PackedWeight.options, where)
        return
    if not isinstance(kind, str) or kind not in row_kinds():
        raise FileFormatError(f"{where}.kind is {shown(kind)}: this version does not know it")
    check_fields(config, row_fields(kind), where)


def check_tensors(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Compares the file's tensors with those that the module needs, which may have no memory yet.

    Raises:
        FileFormatError: If a type or shape differs; missing and further ones are not looked at.
        ConfigError: If a shape differs from that of the user's own module.
    """
    for name, needed in module.state_dict().items():
        found = tensors.get(name)
        if not isinstance(needed, Tensor) or found is None:
            continue
        if isinstance(needed, nn.parameter.UninitializedParameter):
            continue
        if needed.device.type != "meta":  # a part of the user's module, which keeps its type
            if found.shape != needed.shape:
                raise ConfigError(
                    f"{path} does not fit the module: tensor {name!r} is {list(found.shape)} in "
                    f"the file, {list(needed.shape)} in the module"
                )
        elif found.shape != needed.shape or found.dtype != needed.dtype:
            raise FileFormatError(
                f"{path}: tensor {name!r} is {found.dtype} {list(found.shape)}, but the layers "
                f"need {needed.dtype} {list(needed.shape)}"
            )


def check_loaded(module: nn.Module, path: str | Path) -> None:
    """Checks the layers once their tensors are in place.

    Raises:
        FileFormatError: Names the layer, the site and what is wrong.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, QuantLayer):
            sites = {n for n, m in layer.named_children() if isinstance(m, RowQuantizer)}
            sites |= {n for n, m in layer.named_children() if isinstance(m, PackedWeight)}
            missing = sorted(layer.required_sites() - sites)
            if missing:
                raise FileFormatError(f"{path}: layer {name!r} has no site {missing[0]!r}")
        try:
            norm = isinstance(layer, QuantBatchNorm) and layer.frozen
            if norm or isinstance(layer, QuantLayer | RowQuantizer | PackedWeight):
                layer.check_loaded()
        except NodebitsError as error:
            raise FileFormatError(f"{path}: {name}: {error}") from error
    for name, part in (*module.named_parameters(), *module.named_buffers()):
        if part.device.type == "meta":
            raise FileFormatError(f"{path}: nothing in the file fills {name!r}")


def blank() -> torch.device:
    """Where modules are built from a file's options before its tensors are in place: nowhere."""
    return torch.device("meta")
