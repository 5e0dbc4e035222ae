"""Whether a layer's functions may be run on tiles: they are, once, and compared.

What a function does beside its result (a counter, a reduction over all edges, a random draw) shows
as another result, as a changed attribute or buffer, or as an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import Aggregation

from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer

# Share of the result, by norms: sums of floats in another order differ by less.
TOLERANCE = 1e-4


def differs(at_once: Any, tiled: Any) -> str | None:
    """How two results differ beyond rounding, in words; None where they do not.

    Args:
        at_once: A tensor, or a tuple of them.
        tiled: Likewise.
    """
    if isinstance(at_once, tuple) and isinstance(tiled, tuple) and len(at_once) == len(tiled):
        pairs = zip(at_once, tiled, strict=True)
        return next((said for pair in pairs if (said := differs(*pair)) is not None), None)
    if not (isinstance(at_once, Tensor) and isinstance(tiled, Tensor)):
        return (
            f"its functions return a {type(at_once).__name__} for all edges at once and a "
            f"{type(tiled).__name__} for edges by target"
        )
    if at_once.shape != tiled.shape:
        return (
            f"its functions give {list(at_once.shape)} for all edges at once and "
            f"{list(tiled.shape)} for edges by target"
        )
    one, other = at_once.double(), tiled.double()
    if not torch.equal(one.isnan(), other.isnan()):
        return "its functions give NaN for other targets when edges come by target"
    one, other = one.nan_to_num(0.0), other.nan_to_num(0.0)
    error = float((one - other).norm())
    scale = float(one.norm())
    if error > TOLERANCE * scale + 1e-12:
        return (
            "its functions give other results for edges by target than for all edges at once "
            f"(relative difference {error / max(scale, 1e-30):.2g}): they look beyond the edges of "
            "one target, draw at random or keep a state"
        )
    return None


def pads(aggregation: nn.Module | None) -> bool:
    """Whether an aggregation (or one inside it) fills all targets up to as many rows."""
    return aggregation is not None and any(
        isinstance(module, Aggregation)
        and "max_num_elements" in inspect.signature(module.forward).parameters
        for module in aggregation.modules()
    )


_SITES = (Quantizer, WeightQuantizer, RowQuantizer, PackedWeight)
# What torch keeps of a module, which no function of a layer writes to.
_OF_TORCH = frozenset(vars(nn.Module()))


class States:
    """What a layer keeps and is given, to see whether its functions write to it.

    Args:
        module: The layer.
        given: Arguments of ``propagate``.
    """

    def __init__(self, module: nn.Module, given: Mapping[str, Any]) -> None:
        self._module, self._given = module, given
        self._before = self._look()

    def _look(self) -> dict[str, Any]:
        """By what it is called in words: what it is, and what shows that it was written to."""
        found: dict[str, Any] = {}
        for path, child in self._module.named_modules():
            if isinstance(child, _SITES) or ("." in path and self._at_site(path)):
                continue
            for name, value in (*child.named_buffers(recurse=False), *vars(child).items()):
                if name in _OF_TORCH:
                    continue
                if isinstance(value, Tensor):
                    found[f"{_joined(path, name)!r} of the layer"] = id(value), value._version
                elif isinstance(value, list | dict | set):
                    parts = value.values() if isinstance(value, dict) else value
                    found[f"{_joined(path, name)!r} of the layer"] = id(value), [*map(id, parts)]
        for name, value in self._given.items():
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, Tensor):
                    found[f"the argument {name!r}"] = id(part), part._version
        return found

    def _at_site(self, path: str) -> bool:
        modules = dict(self._module.named_modules())
        parents = path.split(".")
        return any(
            isinstance(modules[".".join(parents[:depth])], _SITES)
            for depth in range(1, len(parents))
        )

    def written(self) -> str | None:
        """What was written to in place, in words."""
        now = self._look()
        for what, (same, state) in self._before.items():
            if what in now and now[what][0] == same and now[what][1] != state:
                return f"its functions write to {what}"
        return None


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
