"""Features packed ahead as inputs of a plan: the tensors of their rows, by site and field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodebits.core.row_layout import RowLayout
from nodebits.engine.affine import Affine
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows

_SCALE, _SHIFT, _WIDTHS = "scale", "shift", "widths"


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
            elif isinstance(value, RowLayout):
                found[f"{name}/{site}/{_WIDTHS}"] = value.widths
        if rows.affine.by_row:
            found[f"{name}/{site}/{_SCALE}"] = rows.affine.scale
        if rows.affine.shift is not None:
            found[f"{name}/{site}/{_SHIFT}"] = rows.affine.shift
    return found


def with_tensors(name: str, x: PackedInput, tensors: Mapping[str, Tensor]) -> PackedInput:
    """Features like ``x`` with the tensors given; inverse of :func:`tensors_of`."""
    made = {}
    for site, rows in x.rows.items():
        data: Any = rows.data
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(data):
            key, value = f"{name}/{site}/{field.name}", getattr(data, field.name)
            if field.default_factory is not dataclasses.MISSING:
                changes[field.name] = field.default_factory()  # what it keeps is of the old ones
            elif isinstance(value, RowLayout):
                changes[field.name] = RowLayout.of(tensors[f"{name}/{site}/{_WIDTHS}"])
            else:
                changes[field.name] = tensors.get(key, value)
        affine = rows.affine
        scale = tensors[f"{name}/{site}/{_SCALE}"] if affine.by_row else affine.scale
        shift = None if affine.shift is None else tensors[f"{name}/{site}/{_SHIFT}"]
        affine = Affine(scale, affine.zero_point, affine.axis, shift)
        made[site] = Rows(dataclasses.replace(data, **changes), affine)
    shape = next(iter(made.values())).shape if made else x.shape
    return PackedInput(made, (shape[0], shape[1]))


def kind_of_rows(x: PackedInput) -> Any:
    """What two inputs must have in common to be read by one plan."""
    found = []
    for site, rows in x.rows.items():
        data: Any = rows.data
        held = [isinstance(getattr(data, f.name), Tensor) for f in dataclasses.fields(data)]
        kind = tuple(_described(rows).items()), rows.affine.axis, rows.affine.shift is None
        found.append((site, kind, tuple(held)))
    return tuple(found)


def described(x: PackedInput) -> dict[str, Any]:
    """What a plan for such features says of them: kind, width and columns by site."""
    return {site: _described(rows) for site, rows in x.rows.items()}


def _described(rows: Rows) -> dict[str, Any]:
    about = {"kind": rows.data.name, "num_cols": rows.num_cols}
    # The largest of several widths is one of the values.
    return about if rows.layout is not None or rows.is_float else {**about, "bits": rows.bits}
