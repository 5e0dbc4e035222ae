"""Sizes of a kernel's tiles, by its name and the shape: by rule, or what was measured on this card.

A shape is known by powers of two, so that one measurement serves all shapes near it. Results do not
depend on the sizes. Kernels whose sums of floats follow the tiles (gradients) have none but the
rule's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

Sizes = dict[str, int]
# Values of a tile that a program holds in registers, in kernels that only pass through them.
_TILE = 1024
# Edges that the lanes of a word hold the sum of, by width: 255 divided by the largest code.
MOST_EDGES = {1: 128, 2: 64, 4: 16, 8: 256}
# Of tiles that were measured: the most values that a program may hold.
_MOST = 1 << 13


class Key(NamedTuple):
    """What a choice is for.

    Attributes:
        kernel: Name of the kernel.
        shape: What its family asks for, in powers of two.
    """

    kernel: str
    shape: tuple[int, ...]


class Family(NamedTuple):
    """Kernels whose tiles have the same sizes.

    Attributes:
        shape: Names of the parts of a shape.
        exact: Parts, the first ones, that are kept as they are.
        candidates: Sizes worth a measurement for a shape, the rule's first.
    """

    shape: tuple[str, ...]
    exact: int
    candidates: Callable[..., list[Sizes]]


def power_of_two(least: int, wanted: int, most: int) -> int:
    """The smallest power of two that is not below ``wanted``, between two others."""
    return max(least, min(most, 1 << max(wanted - 1, 0).bit_length()))


def _varied(rule: Sizes, most: int, **choices: tuple[int, ...]) -> list[Sizes]:
    """The rule, and all combinations of choices whose tiles have at most so many values."""
    found = [rule]
    for values in product(*choices.values()):
        made = {**rule, **dict(zip(choices, values, strict=True))}
        tile = [size for name, size in made.items() if name != "num_warps"]
        values_held = 1
        for size in tile:
            values_held *= size
        if made not in found and values_held <= most:
            found.append(made)
    return found


def _up_to(most: int, *sizes: int) -> tuple[int, ...]:
    return tuple(size for size in sizes if size <= most)


def _passing(rows: int, cols: int) -> list[Sizes]:
    block = power_of_two(8, cols, 256)
    rule = {"ROWS": power_of_two(1, rows, _TILE // block), "BLOCK": block}
    blocks = _up_to(power_of_two(8, cols, 512), 64, 128, 256, 512) or (block,)
    return _varied(
        rule, 4 * _TILE, ROWS=_up_to(rows, 1, 4, 16, 64), BLOCK=blocks, num_warps=(1, 4, 8)
    )


def _summing(bits: int, unit: int, cols: int, degree: int) -> list[Sizes]:
    del degree  # the rule does not follow it, a measurement may
    block = power_of_two(32, cols, 256)
    units = block if unit == 0 else max(block * bits // (8 * unit), 1)
    most = MOST_EDGES.get(bits, 8) if unit == 4 else 256
    rule = {
        "BLOCK": block,
        "EDGES": power_of_two(8, 512 // units, most),
        "num_warps": 1 if units * bits < 512 else 2,
    }
    blocks = _up_to(power_of_two(32, cols, 512), 32, 64, 128, 256, 512)
    edges = _up_to(most, 8, 16, 32, 64)
    return _varied(rule, _MOST, BLOCK=blocks, EDGES=edges, num_warps=(1, 2, 4))


def _by_edge(most_block: int) -> Callable[..., list[Sizes]]:
    def candidates(bits: int, cols: int) -> list[Sizes]:
        del bits
        block = power_of_two(32, cols, most_block)
        rule = {"BLOCK": block, "EDGES": power_of_two(8, 512 // block, 16)}
        blocks = _up_to(power_of_two(32, cols, most_block), 32, 64, 128, 256)
        return _varied(rule, _MOST, BLOCK=blocks, EDGES=(8, 16, 32), num_warps=(1, 2, 4))

    return candidates


def _scoring(bits: int, width: int) -> list[Sizes]:
    del bits
    rule = {"BLOCK": power_of_two(8, width, 64), "EDGES": 16}
    return _varied(rule, _MOST, EDGES=(8, 16, 32, 64), num_warps=(1, 2, 4))


def _softmax(heads: int) -> list[Sizes]:
    block = power_of_two(1, heads, 16)
    rule = {"EDGES": power_of_two(8, 256 // block, 256), "HEADS": block, "num_warps": 1}
    return _varied(rule, _MOST, EDGES=(8, 16, 32, 64, 128), num_warps=(1, 2, 4))


def _attending(width: int) -> list[Sizes]:
    rule = {"ROWS": 16, "KEYS": 16, "BLOCK": power_of_two(8, width, 64)}
    return _varied(rule, 4 * _MOST, ROWS=(8, 16, 32), KEYS=(8, 16, 32), num_warps=(1, 2, 4))


def _multiplying(bits: int, w_bits: int, rows: int, cols: int, depth: int) -> list[Sizes]:
    del bits, w_bits
    # The least that units for int8 matrices take; more as the shape allows.
    rule = {
        "ROWS": power_of_two(16, rows, 64),
        "COLS": power_of_two(16, cols, 64),
        "DEPTH": power_of_two(32, depth, 64),
    }
    return _varied(
        rule, 128 * 128 * 64,
        ROWS=_up_to(max(rows, 16), 16, 32, 64, 128), COLS=_up_to(max(cols, 16), 16, 32, 64, 128),
        DEPTH=_up_to(max(depth, 32), 32, 64), num_warps=(4, 8),
    )  # fmt: skip


def _searching(rows: int) -> list[Sizes]:
    return _varied({"ROWS": power_of_two(32, rows, 256)}, _MOST, ROWS=(64, 128, 256, 512))


_PASSING = Family(("rows", "columns"), 0, _passing)
_EDGES = Family(("bits", "columns"), 1, _by_edge(128))
_REDUCING = Family(("bits", "columns"), 1, _by_edge(256))
#: Families by the name of the kernel; several that are started with one choice go by the first.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("pack", "unpack", "gather", "take", "fake_quantize", "finish_floats", "finish_sums"),
        _PASSING,
    ),
    "sum_rows": Family(("bits", "unit", "columns", "degree"), 2, _summing),
    **dict.fromkeys(("outer_rows", "modulate", "multiply_levels", "pair_rows"), _EDGES),
    **dict.fromkeys(("extreme_rows", "statistics_rows"), _REDUCING),
    "scores": Family(("bits", "width"), 1, _scoring),
    "softmax": Family(("heads",), 0, _softmax),
    "attend": Family(("width",), 0, _attending),
    "multiply": Family(("bits", "w_bits", "rows", "columns", "depth"), 2, _multiplying),
    "nearest_group": Family(("rows",), 0, _searching),
}


@cache
def candidates(key: Key) -> list[Sizes]:
    """Sizes worth a measurement, the rule's first; not to be written to."""
    return FAMILIES[key.kernel].candidates(*key.shape)


@cache
def key_of(kernel: str, shape: tuple[int, ...]) -> Key:
    """What a choice for a shape is kept under."""
    exact = FAMILIES[kernel].exact
    bucketed = (1 << max(size - 1, 0).bit_length() for size in shape[exact:])
    return Key(kernel, (*shape[:exact], *bucketed))


def passing_rule(num_rows: int, num_cols: int) -> Sizes:
    """The rule for kernels that pass through a matrix."""
    return _passing(num_rows, num_cols)[0]
