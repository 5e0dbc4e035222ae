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

from nodebits.core.bucketed import AlignedRows, BucketedRows, RowLayout, pack_widths, unpack_widths
from nodebits.core.errors import ConfigError, FileFormatError, NodebitsError
from nodebits.core.file_fields import (
    BITS,
    SIZE,
    Choice,
    ListOf,
    Optional,
    Options,
    Text,
    check_fields,
    check_object,
)
from nodebits.core.qtensor import QTensor
from nodebits.core.sparse_rows import SparseRows
from nodebits.nn.functional import PackedInput
from nodebits.nn.quantizers.rows import PackedRows, RowQuantizer
from nodebits.ops import validate_csr
from nodebits.runtime import container

# What is said of the rows of a site, besides the checksums of what they are read with.
_ROWS: Options = {
    "kind": Text(),
    "bits": Optional(BITS, absent=True),
    "num_cols": Optional(SIZE, absent=True),
    "num_rows": Optional(SIZE, absent=True),
    "axis": Optional(Choice((-1, 0, 1)), absent=True),
}
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
_Stored = tuple[dict[str, Any], dict[str, Tensor]]


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
        about, parts = _store(rows, _site(sites, name))
        contents[name] = {**about, "site": _fingerprint(sites[name])}
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
    rows: dict[str, PackedRows] = {}
    for name, about in check_object(header.get("rows"), f"{where}.rows").items():
        check_fields(about, _ROWS, f"{where}.rows.{name}", others=True)
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
            rows[name] = _restore(about, parts, site)
        except (KeyError, TypeError, ValueError, RuntimeError, NodebitsError) as error:
            raise FileFormatError(
                f"{path}: the rows of site {name} are damaged: {error}"
            ) from error
        found = rows[name]
        size = () if isinstance(found, AlignedRows) else tuple(found.shape)
        if size != shape:
            raise FileFormatError(
                f"{path}: the rows of site {name} are {list(size)}, but header.shape is "
                f"{list(shape)}"
            )
        if not isinstance(found, Tensor | AlignedRows) and not site.made(found):
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
    return {name: container.checksum(value) for name, value in site.state_dict().items()}


def _store(rows: PackedRows, site: RowQuantizer) -> _Stored:
    if isinstance(rows, Tensor):
        return {"kind": "float"}, {"values": rows}
    if isinstance(rows, QTensor):
        about = {"kind": "dense", "bits": rows.bits, "num_cols": rows.num_cols, "axis": rows.axis}
        return about, {"packed": rows.packed, "scale": rows.scale, "zero_point": rows.zero_point}
    if isinstance(rows, SparseRows):
        about = {"kind": "sparse", "bits": rows.bits, "num_cols": rows.num_cols}
        short = rows.num_cols <= 1 << 16
        parts = {
            "counts": rows.indptr.diff().to(torch.int32),
            "indices": rows.indices.to(torch.uint16) if short else rows.indices,
            "row_code": rows.row_code,
            "row_sum": rows.row_sum,
            "scale": rows.scale,
        }
        return about, parts if rows.codes is None else {**parts, "codes": rows.codes}
    if not isinstance(rows, BucketedRows):
        raise ConfigError("these rows are between two layers of a forward: they enter no file")
    about = {"kind": "bucketed", "num_cols": rows.num_cols, "axis": rows.axis}
    if site.bound_to(rows.layout):
        return {**about, "num_rows": rows.num_rows, "bound": True}, {"packed": rows.packed}
    parts = {
        "packed": rows.packed,
        "widths": pack_widths(rows.layout.widths),
        "scale": rows.scale,
        "zero_point": rows.zero_point,
    }
    if rows.shift is not None:
        parts["shift"] = pack_widths(rows.shift + 1)
    return {**about, "num_rows": rows.num_rows, "bound": False}, parts


def _check_types(parts: dict[str, Tensor]) -> None:
    for part, tensor in parts.items():
        if tensor.dtype not in _PARTS.get(part, ()):
            expected = " or ".join(str(dtype) for dtype in _PARTS.get(part, ())) or "no such tensor"
            raise TypeError(f"{part} is {tensor.dtype}, expected {expected}")


def _restore(about: dict[str, Any], parts: dict[str, Tensor], site: RowQuantizer) -> PackedRows:
    kind = about["kind"]
    if kind == "float":
        return parts["values"]
    num_cols = int(about["num_cols"])
    if kind == "dense":
        axis = int(about["axis"])
        return QTensor(
            parts["packed"], parts["scale"], parts["zero_point"], about["bits"], num_cols, axis
        )
    if kind == "sparse":
        counts = parts["counts"].long()
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        indices = parts["indices"].to(torch.int32)
        validate_csr(indptr, indices, num_cols)
        values = (parts["row_code"], parts["row_sum"], parts["scale"], int(about["bits"]), num_cols)
        return SparseRows(indptr, indices, parts.get("codes"), *values)
    num_rows = int(about["num_rows"])
    if about["bound"]:
        return site.bound_rows(parts["packed"], num_cols)
    layout = RowLayout.of(unpack_widths(parts["widths"], num_rows))
    shift = parts.get("shift")
    return BucketedRows(
        parts["packed"],
        layout,
        parts["scale"],
        parts["zero_point"],
        num_cols,
        int(about["axis"]),
        None if shift is None else unpack_widths(shift, num_rows) - 1,
    )
