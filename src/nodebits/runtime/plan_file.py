"""The plan in a model file: JSON in the header, and tensors that the model has not anyway."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import FileFormatError
from nodebits.core.file_fields import check_object, shown
from nodebits.core.strict_json import to_json
from nodebits.plan.plan import Plan

# What begins so is no tensor of the model's state.
PREFIX = "plan."


def with_names(plan: Plan, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plan as the header holds it.

    Args:
        plan: Of the model.
        state: Tensors of the model; what is one of these is not stored again.

    Returns:
        JSON whose constants are names of tensors in the file, and the tensors to be added to it.
    """
    places = {_place(t): name for name, t in state.items()}
    # A model that was moved holds copies of what its plan holds.
    moved = not any(_place(t) in places for t in plan.constants.values())
    alike = _Alike(state if moved else {})
    names, more = {}, {}
    for name, t in plan.constants.items():
        names[name] = places.get(_place(t)) or alike.name(t) or PREFIX + name
        if names[name] == PREFIX + name:
            more[PREFIX + name] = t
    about = plan.about
    about["constants"] = {key: names[name] for key, name in about["constants"].items()}
    return about, more


class _Alike:
    """Tensors by what is in them."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._by_shape: dict[Any, list[tuple[str, Tensor]]] = {}
        for name, t in state.items():
            self._by_shape.setdefault((t.dtype, t.shape), []).append((name, t.detach().cpu()))

    def name(self, t: Tensor) -> str | None:
        """That of a tensor with the same values; None where there is none."""
        known = self._by_shape.get((t.dtype, t.shape), [])
        return next((name for name, other in known if torch.equal(other, t)), None)


def _place(t: Tensor) -> tuple[Any, ...]:
    return t.data_ptr(), t.dtype, tuple(t.shape), t.is_contiguous()


def read_plan(
    header: dict[str, Any], tensors: dict[str, Tensor], path: str | Path
) -> Plan | str | None:
    """The plan of a file; its own tensors are taken out of ``tensors``.

    Where it has none, why, if it says so; else None.

    Raises:
        FileFormatError: If it names a tensor that is not there, or the reason is no text.
    """
    reason = header.pop("no_plan", None)
    if not isinstance(reason, str | None):
        raise FileFormatError(f"{path}: header.no_plan is {shown(reason)}, not a text")
    own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PREFIX)}
    about = header.pop("plan", None)
    if about is None:
        if own:
            raise FileFormatError(f"{path} has the tensor {min(own)!r} and no plan")
        return reason
    where = f"{path}: header.plan"
    names = check_object(check_object(about, where).get("constants"), f"{where}.constants")
    constants: dict[str, Tensor] = {}
    short: dict[str, str] = {}
    for name in names.values():
        found = own.get(name) if isinstance(name, str) else None
        found = tensors.get(name) if found is None else found
        if found is None:
            raise FileFormatError(f"{where} names {shown(name)}, which is no tensor of the file")
        short.setdefault(name, f"c{len(short)}")
        constants[short[name]] = found
    about["constants"] = {number: short[name] for number, name in names.items()}
    return Plan(to_json(about, separators=(",", ":")), constants)
