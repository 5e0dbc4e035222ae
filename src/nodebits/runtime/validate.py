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

from nodebits.core.errors import ConfigError, FileFormatError, NodebitsError
from nodebits.core.fields import ListOf, Options, Text, check_fields, check_object, shown
from nodebits.nn.layer import QuantLayer, layer_by_name
from nodebits.nn.models import ModelSpec
from nodebits.nn.quantizers.rows import RowQuantizer, row_kinds
from nodebits.nn.quantizers.weight import PackedWeight

_ENTRY = {"class", "config", "sites"}


def check_model_header(
    header: dict[str, Any], tensors: dict[str, Tensor], path: str | Path
) -> None:
    """Checks every field of a model file's header.

    Raises:
        FileFormatError: Names the field.
        UnknownNameError: If it names a layer or a kind of rows that this version does not know.
    """
    where = f"{path}: header"
    fields: Options = {"module": Text(), "folded": ListOf(Text())}
    check_fields(header, fields, where, others=True)
    for key in ("layers", "metadata"):
        check_object(header.get(key), f"{where}.{key}")
    if header.get("model") is not None:
        # Every layer that a spec asks for has tensors of its own.
        check_object(header["model"], f"{where}.model")
        spec = ModelSpec.from_json(header["model"])
        if spec.num_layers > len(tensors):
            raise FileFormatError(
                f"{where}.model.num_layers is {spec.num_layers}, but the file has "
                f"{len(tensors)} tensors"
            )
    for name, entry in header["layers"].items():
        at = f"{where}.layers.{name}"
        if not _ENTRY <= check_object(entry, at).keys() or not isinstance(entry["class"], str):
            raise FileFormatError(f"{at} must have the fields {', '.join(sorted(_ENTRY))}")
        cls = layer_by_name(entry["class"])
        check_fields(entry["config"], cls.options, f"{at}.config")
        for site, config in check_object(entry["sites"], f"{at}.sites").items():
            _check_site(cls, site, config, f"{at}.sites.{site}")


def _check_site(cls: type[QuantLayer], name: str, config: Any, where: str) -> None:
    if not name.isidentifier() or hasattr(cls, name) or name in nn.Module().__dict__:
        raise FileFormatError(f"{where}: {shown(name)} is no name of a site")
    kind = check_object(config, where).get("kind")
    if kind is None:
        check_fields(config, PackedWeight.options, where)
        return
    rows = row_kinds().get(kind) if isinstance(kind, str) else None
    if rows is None:
        raise FileFormatError(f"{where}.kind is {shown(kind)}: this version does not know it")
    check_fields(config, {"kind": Text(), **rows.options}, where)


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


def check_loaded(module: nn.Module, header: dict[str, Any], path: str | Path) -> None:
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
            if isinstance(layer, QuantLayer | RowQuantizer):
                layer.check_loaded()
            elif isinstance(layer, PackedWeight):
                layer.check_loaded(bool(header["folded"]))
        except NodebitsError as error:
            raise FileFormatError(f"{path}: {name}: {error}") from error
    for name, part in (*module.named_parameters(), *module.named_buffers()):
        if part.device.type == "meta":
            raise FileFormatError(f"{path}: nothing in the file fills {name!r}")


def blank() -> torch.device:
    """Where modules are built from a file's options before its tensors are in place: nowhere."""
    return torch.device("meta")
