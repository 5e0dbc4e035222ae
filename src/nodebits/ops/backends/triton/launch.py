"""How kernels are started, and the sizes of their tiles.

Sizes follow from the shapes by rules, so a call never waits for a measurement. None was tuned on a
card yet.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Values of a tile that a program holds in registers, in kernels that only pass through them.
_TILE = 1024


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *args: Any, **sizes: Any) -> None:
    """Runs ``grid`` programs on the device of ``like``; none is no error.

    Products and sums of floats stay two roundings each, as in the definitions.
    """
    if 0 in grid:
        return
    with torch.cuda.device_of(like):
        kernel[grid](*args, **sizes, enable_fp_fusion=False)


def power_of_two(least: int, wanted: int, most: int) -> int:
    """The smallest power of two that is not below ``wanted``, between two others."""
    return max(least, min(most, 1 << max(wanted - 1, 0).bit_length()))


def tiles(num_rows: int, num_cols: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and tile for kernels that pass through a matrix."""
    block = power_of_two(8, num_cols, 256)
    rows = power_of_two(1, num_rows, _TILE // block)
    grid = -(-num_rows // rows), -(-num_cols // block)
    return grid, {"ROWS": rows, "BLOCK": block}
