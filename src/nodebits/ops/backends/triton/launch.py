"""How kernels are started, and with which sizes of tiles.

Sizes follow from the shapes by rules, or from what was measured on this card before (``tuned.py``):
either is a lookup, so a call never waits for a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nodebits.ops.backends.triton.tiles import Key, Sizes, candidates, key_of, passing_rule
from nodebits.ops.backends.triton.tuned import serving_choices


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *args: Any, **sizes: Any) -> None:
    """Runs ``grid`` programs on the device of ``like``; none is no error.

    Products and sums of floats stay two roundings each, as in the definitions.
    """
    if 0 in grid:
        return
    with torch.cuda.device_of(like):
        kernel[grid](*args, **sizes, enable_fp_fusion=False)


class _Chosen:
    """What was measured, and what is asked for while someone listens."""

    def __init__(self) -> None:
        self.sizes: dict[Key, Sizes] | None = None  # not looked for yet
        self.asked: list[Key] | None = None


_chosen = _Chosen()


def choices() -> dict[Key, Sizes]:
    """What was measured on this card; read once in a process."""
    if _chosen.sizes is None:
        _chosen.sizes = serving_choices()
    return _chosen.sizes


def forget() -> None:
    """Lets the next launch look for the file anew."""
    _chosen.sizes = None


@contextmanager
def chosen(sizes: dict[Key, Sizes]) -> Iterator[None]:
    """These choices in place of those of the file."""
    before, _chosen.sizes = _chosen.sizes, sizes
    try:
        yield
    finally:
        _chosen.sizes = before


@contextmanager
def listening() -> Iterator[list[Key]]:
    """Notes what launches ask for, each once."""
    before, _chosen.asked = _chosen.asked, []
    try:
        yield _chosen.asked
    finally:
        _chosen.asked = before


def sizes_of(kernel: str, *shape: int) -> Sizes:
    """Sizes of a tile; a lookup.

    Args:
        kernel: A name in :data:`nodebits.ops.backends.triton.tiles.FAMILIES`.
        *shape: What its family asks for.
    """
    key = key_of(kernel, shape)
    if _chosen.asked is not None and key not in _chosen.asked:
        _chosen.asked.append(key)
    found = choices().get(key)
    return candidates(key)[0] if found is None else found


def _grid(sizes: Sizes, num_rows: int, num_cols: int) -> tuple[tuple[int, int], Sizes]:
    return (-(-num_rows // sizes["ROWS"]), -(-num_cols // sizes["BLOCK"])), sizes


def tiles(kernel: str, num_rows: int, num_cols: int) -> tuple[tuple[int, int], Sizes]:
    """Grid and tile for a kernel that passes through a matrix."""
    return _grid(sizes_of(kernel, num_rows, num_cols), num_rows, num_cols)


def rule_tiles(num_rows: int, num_cols: int) -> tuple[tuple[int, int], Sizes]:
    """:func:`tiles` by the rule alone: for sums of floats, whose order the shape alone decides."""
    return _grid(passing_rule(num_rows, num_cols), num_rows, num_cols)
