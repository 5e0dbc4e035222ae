"""Inputs and comparisons shared by the operator tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nodebits import ops

COMPILED = [isa for isa in ops.available_isas() if isa != "reference"]
# Columns around the ends of 16, 32 and 64-byte blocks at every width.
COLUMNS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257]
DEGREES = [0, 1, 2, 15, 16, 17, 0, 18, 84, 85, 86, 255, 256, 257, 258, 4370, 10_000, 3]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(rows: int, cols: int, bits: int, g: torch.Generator) -> Tensor:
    return torch.randint(0, 1 << bits, (rows, cols), generator=g, dtype=torch.uint8)


def graph(degrees: list[int], sources: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    indptr = torch.tensor([0, *degrees]).cumsum(0)
    edges = int(indptr[-1])
    return indptr, torch.randint(0, sources, (edges,), generator=g, dtype=torch.int32)


def misaligned(t: Tensor, shift: int = 1) -> Tensor:
    """A contiguous copy whose data starts `shift` elements (bytes, for uint8) into its buffer."""
    buffer = t.new_empty(t.numel() + shift)
    view = buffer[shift:].view(t.shape)
    view.copy_(t)
    return view


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_contiguous():
        return False
    if a.is_floating_point():  # NaN equals NaN, and -0 is not +0
        return torch.equal(a.view(torch.int32), b.view(torch.int32)) or (
            torch.equal(a.isnan(), b.isnan())
            and torch.equal(a.nan_to_num().view(torch.int32), b.nan_to_num().view(torch.int32))
        )
    return torch.equal(a, b)


def assert_all_levels_agree(op: Callable[..., Any], *args: Any) -> Any:
    """Result of ``op(*args)`` on the reference; every level, on 1 and 2 threads, must equal it."""
    with ops.force_isa("reference"):
        expected = op(*args)
    before = torch.get_num_threads()
    try:
        for isa in COMPILED:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                with ops.force_isa(isa):
                    assert same(op(*args), expected), f"{isa} with {threads} threads"
    finally:
        torch.set_num_threads(before)
    return expected
