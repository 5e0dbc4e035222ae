"""Files of packed features: what ``pack_input`` made, to be read where the model runs.

A file holds the codes and whatever the model does not: scales that rows bring along, columns of
sparse rows. Widths and scales of a model that has them for every node are not repeated; the file
names them by a checksum, so that it is refused beside another model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError, FileFormatError, NodebitsError
from nodebits.core.file_fields import (
    SIZE,
    Choice,
    ListOf,
    Options,
    check_fields,
    check_object,
)
from nodebits.engine.formats import formats
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows
from nodebits.engine.sites import RowQuantizer
from nodebits.runtime import container
from nodebits.runtime.entries import checksum

# What the tensors of a site's rows are.
_PARTS = {
    "values": (torch.float32,),
    "packed": (torch.uint8,),
    "scale": (torch.float32,),
    "zero_point": (torch.float32,),
    "counts": (torch.int32,),
    "indices": (torch.uint16, torch.int32),
    "row_code": (torch.int32,),
    "row_sum": (torch.int32,),
    "codes": (torch.uint8,),
    "widths": (torch.uint8,),
    "shift": (torch.uint8,),
}


def write_features(features: PackedInput, sites: dict[str, RowQuantizer], path: str | Path) -> None:
    """Writes packed features, atomically.

    Args:
        features: What ``pack_input`` returned.
        sites: The model's sites by path.
        path: File to write.

    Raises:
        ConfigError: If they were packed for another model, or for a reordered graph.
        OutputError: If the file cannot be written; an existing one is untouched.
    """
    if features.graph is not None:
        raise ConfigError(
            "these features are in the order of a reordered graph, which no file holds: call "
            "pack_input without it, save, and let predict reorder"
        )
    contents: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, rows in features.rows.items():
        site = _site(sites, name)
        about, parts = rows.data.parts(rows.affine)
        if site.bound_to(rows.layout):  # the model has what they are read with
            about, parts = {**about, "bound": True}, {"packed": parts["packed"]}
        contents[name] = {"kind": rows.data.name, **about, "site": _fingerprint(site)}
        tensors.update({f"{name}/{part}": tensor for part, tensor in parts.items()})
    about_all = {"shape": list(features.shape), "rows": contents}
    container.write(path, container.FEATURES, about_all, tensors)


def read_features(path: str | Path, sites: dict[str, RowQuantizer]) -> PackedInput:
    """Reads packed features for a model.

    Args:
        path: A file that :func:`write_features` wrote.
        sites: The model's sites by path.

    Raises:
        FileNotFoundError: If there is no file.
        FileFormatError: If it is foreign, truncated or damaged.
        FileVersionError: If a newer version wrote it.
        ConfigError: If it belongs to another model.
    """
    header, tensors = container.read(path, container.FEATURES)
    where = f"{path}: header"
    check_fields(header, {"shape": ListOf(SIZE, 2)}, where, others=True)
    shape = (int(header["shape"][0]), int(header["shape"][1]))
    rows: dict[str, Rows] = {}
    for name, about in check_object(header.get("rows"), f"{where}.rows").items():
        known = {n: f for n, f in formats().items() if not f.transient}
        kind: Options = {"kind": Choice(tuple(known))}
        check_fields(about, kind, f"{where}.rows.{name}", others=True)
        format_ = known[about["kind"]]
        check_fields(about, format_.fields, f"{where}.rows.{name}", others=True)
        site = _site(sites, name)
        other = ConfigError(
            f"{path} was packed for site {name} of another model, with other widths or scales: "
            "pack the features again with this one"
        )
        if about.get("site") != _fingerprint(site):
            raise other
        parts = {
            key.rpartition("/")[2]: tensor
            for key, tensor in tensors.items()
            if key.rpartition("/")[0] == name
        }
        try:
            _check_types(parts)
            rows[name] = (
                site.bound_rows(parts["packed"], int(about["num_cols"]))
                if about.get("bound")
                else Rows(*format_.read(about, parts))
            )
        except (KeyError, TypeError, ValueError, RuntimeError, NodebitsError) as error:
            raise FileFormatError(
                f"{path}: the rows of site {name} are damaged: {error}"
            ) from error
        found = rows[name]
        if found.shape != shape:
            raise FileFormatError(
                f"{path}: the rows of site {name} are {list(found.shape)}, but header.shape is "
                f"{list(shape)}"
            )
        if not found.is_float and not site.made(found):
            raise other
    return PackedInput(rows, shape)


def _site(sites: dict[str, RowQuantizer], name: str) -> RowQuantizer:
    if name not in sites:
        raise ConfigError(
            f"the features were packed for a site {name!r}, which this model has not: call "
            "pack_input of this model"
        )
    return sites[name]


def _fingerprint(site: RowQuantizer) -> dict[str, int]:
    """Checksums of what the rows are read with."""
    return {name: checksum(value) for name, value in site.state_dict().items()}


def _check_types(parts: dict[str, Tensor]) -> None:
    for part, tensor in parts.items():
        if tensor.dtype not in _PARTS.get(part, ()):
            expected = " or ".join(str(dtype) for dtype in _PARTS.get(part, ())) or "no such tensor"
            raise TypeError(f"{part} is {tensor.dtype}, expected {expected}")
