"""Features packed ahead as inputs of a plan: the tensors of their rows, by site and field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodebits.engine.affine import Affine
from nodebits.engine.formats.bucketed import Bucketed
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows

_SCALE = "scale"


def tensors_of(name: str, x: PackedInput) -> dict[str, Tensor]:
    """The tensors that other features would have others of, by ``name/site/field``.

    Args:
        name: Of the argument.
        x: Features packed ahead.
    """
    found = {}
    for site, rows in x.rows.items():
        data: Any = rows.data
        for field in dataclasses.fields(data):
            value = getattr(data, field.name)
            if isinstance(value, Tensor):
                found[f"{name}/{site}/{field.name}"] = value
        if rows.affine.by_row:
            found[f"{name}/{site}/{_SCALE}"] = rows.affine.scale
    return found


def with_tensors(name: str, x: PackedInput, tensors: Mapping[str, Tensor]) -> PackedInput:
    """Features like ``x`` with the tensors given; inverse of :func:`tensors_of`."""
    made = {}
    for site, rows in x.rows.items():
        data: Any = rows.data
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(data):
            if field.default_factory is not dataclasses.MISSING:
                changes[field.name] = field.default_factory()  # what it keeps is of the old ones
            else:
                key = f"{name}/{site}/{field.name}"
                changes[field.name] = tensors.get(key, getattr(data, field.name))
        affine = rows.affine
        if affine.by_row:
            scale = tensors[f"{name}/{site}/{_SCALE}"]
            affine = Affine(scale, affine.zero_point, 0, affine.shift)
        made[site] = Rows(dataclasses.replace(data, **changes), affine)
    shape = next(iter(made.values())).shape if made else x.shape
    return PackedInput(made, (shape[0], shape[1]))


def kind_of_rows(x: PackedInput) -> Any:
    """What two inputs must have in common to be read by one plan."""
    found = []
    for site, rows in x.rows.items():
        data: Any = rows.data
        held = [isinstance(getattr(data, f.name), Tensor) for f in dataclasses.fields(data)]
        about = data.name, rows.bits, rows.num_cols, rows.affine.axis
        found.append((site, about, tuple(held)))
    return tuple(found)


def is_bound(x: PackedInput) -> bool:
    """Whether rows have widths of their own, as nodes of one graph have."""
    return any(isinstance(rows.data, Bucketed) for rows in x.rows.values())
