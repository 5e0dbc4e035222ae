"""Where a model and its arguments are: one device, or an error that names both."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from nodebits.core.errors import ShapeError
from nodebits.engine.packed_input import PackedInput
from nodebits.graph import Graph
from nodebits.plan.packed_rows import tensors_of

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device | None:
    """Where all that a module holds is; None where that is on several devices."""
    found = {t.device for t in (*module.parameters(), *module.buffers())}
    return found.pop() if len(found) == 1 else None if found else CPU


def check_places(
    module: nn.Module, names: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any]
) -> None:
    """Refuses arguments that are not where the model is; nothing is moved in silence.

    Args:
        module: The model; one on several devices is let be.
        names: Of the positional arguments.
        args: By position.
        keywords: By name.

    Raises:
        ShapeError: Names the argument, both devices and the cure.
    """
    device = device_of(module)
    if device is None:
        return
    named = {names[i] if i < len(names) else f"argument {i}": v for i, v in enumerate(args)}
    for name, value in {**named, **keywords}.items():
        for t in _tensors(value):
            # A single number may be anywhere, as torch has it; who has none of its values says so.
            if t.device != device and t.dim() and "meta" not in (t.device.type, device.type):
                raise misplaced(name, t.device, device)


def misplaced(name: str, there: torch.device, device: torch.device) -> ShapeError:
    """What is said of an argument on another device than the model's."""
    return ShapeError(
        f"{name!r} is on {there}, but the model is on {device}: move both to one device, with "
        f".to({str(device)!r}) of {name!r} or packed.to({str(there)!r})"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Graph):
        yield value.indices
    elif isinstance(value, PackedInput):
        yield from tensors_of("", value).values()
    elif isinstance(value, Data | HeteroData):
        yield from _tensors([one for store in value.stores for one in store.values()])
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def on_cpu(value: Any) -> Any:
    """Copies of arguments on the CPU: a plan is made there, of a small part of them."""
    if isinstance(value, Tensor):
        return value.cpu()
    if type(value) is Graph:
        parts = value.indptr, value.indices, value.perm, value.edge_weight
        indptr, indices, perm, weight = (None if t is None else t.cpu() for t in parts)
        assert indptr is not None and indices is not None
        return Graph(indptr, indices, value.num_src, perm, weight, value.form)
    if isinstance(value, Data | HeteroData):
        return copy.copy(value).cpu()
    if type(value) is dict:
        return {key: on_cpu(part) for key, part in value.items()}
    return type(value)(map(on_cpu, value)) if type(value) in (list, tuple) else value
