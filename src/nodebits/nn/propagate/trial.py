"""Whether a layer's functions may be run on tiles: they are, once, and compared.

What a function does beside its result (a counter, a reduction over all edges, a random draw) shows
as another result, as a changed attribute or buffer, or as an error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Share of the result, by norms: sums of floats in another order differ by less.
TOLERANCE = 1e-4


def differs(at_once: Tensor, tiled: Tensor) -> str | None:
    """How two results differ beyond rounding, in words; None where they do not."""
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


class States:
    """Versions of a layer's buffers and tensors, to see whether its functions write to them.

    Args:
        module: The layer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._before = self._look()

    def _look(self) -> dict[str, tuple[int, int]]:
        found = dict(self._module.named_buffers(recurse=False))
        found.update({n: v for n, v in vars(self._module).items() if isinstance(v, Tensor)})
        return {name: (id(value), value._version) for name, value in found.items()}

    def written(self) -> str | None:
        """What was written to in place, in words."""
        now = self._look()
        for name, (same, version) in self._before.items():
            if name in now and now[name][0] == same and now[name][1] != version:
                return f"its functions write to {name!r} of the layer"
        return None
