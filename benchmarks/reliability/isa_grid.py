"""R8: every compiled level gives the reference's bits, at every width, size, place and degree.

    python benchmarks/reliability/isa_grid.py

A case is one row (of one in-degree) of a sum, or one small matrix, at one level, width, number of
columns and offset within 64 bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from record import Result, record
from torch import Tensor

from nodebits import ops

import flat  # isort: skip  found by way of record
import operator_inputs as inputs  # isort: skip

COLUMNS = range(1, 258)
BITS = range(1, 9)
# Every fourth of the 64 offsets; those of the next number of columns are others.
STEP = 4
DEGREES = [0, 1, 2, 15, 16, 17, 255, 256, 257]
HUB = [10_000]
SOURCES = 300
WEIGHT_ROWS = 7


class Grid:
    """Counts of cases by operator, and the cases that differed."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.wrong: list[str] = []

    def compare(
        self, name: str, expected: Tensor, cases: int, op: Callable[..., Tensor], *args: Any
    ) -> None:
        """Runs ``op(*args)``, which stands for so many cases, on every compiled level."""
        for isa in inputs.COMPILED:
            with ops.force_isa(isa):
                same = inputs.same(op(*args), expected)
            self.count[name] += cases
            if not same:
                shown = [list(a.shape) if isinstance(a, Tensor) else a for a in args]
                self.wrong.append(f"{name} {isa} {shown}")


def reference(op: Callable[..., Tensor], *args: Any) -> Tensor:
    """The result of the definition in torch."""
    with ops.force_isa("reference"):
        return op(*args)


def placed(t: Tensor, offset: int) -> Tensor:
    """A copy ``offset`` elements behind a multiple of 64 bytes."""
    moved = inputs.misaligned(t, offset)
    assert moved.data_ptr() % 64 == offset * t.element_size() % 64
    return moved


def rows_of(grid: Grid, bits: int, cols: int, g: torch.Generator) -> None:
    """Sums over neighbours, packing and unpacking, of rows anywhere within 64 bytes."""
    codes = inputs.codes(SOURCES, cols, bits, g)
    packed = reference(ops.pack, codes, bits)
    indptr, indices = inputs.graph(DEGREES, SOURCES, g)
    sums = reference(flat.spmm, indptr, indices, packed, bits, cols)
    weight = inputs.codes(indices.numel(), 1, 8, g)
    weighted = reference(flat.spmm_weighted, indptr, indices, packed, bits, cols, weight)
    few, few_packed = codes[:5].contiguous(), packed[:5].contiguous()
    for offset in range((bits + cols) % STEP, 64, STEP):
        args = (indptr, indices, placed(packed, offset), bits, cols)
        grid.compare("spmm", sums, len(DEGREES), flat.spmm, *args)
        grid.compare("pack", few_packed, 1, ops.pack, placed(few, offset), bits)
        grid.compare("unpack", few, 1, ops.unpack, placed(few_packed, offset), bits, cols)
    grid.compare("spmm_weighted", weighted, len(DEGREES), flat.spmm_weighted, *args, weight)
    hub = inputs.graph(HUB, SOURCES, g)
    hub_sum = reference(flat.spmm, *hub, packed, bits, cols)
    rows = placed(packed, (bits * 37 + cols) % 64)
    grid.compare("spmm of 10,000", hub_sum, 1, flat.spmm, *hub, rows, bits, cols)


def products_of(grid: Grid, bits: int, cols: int, g: torch.Generator) -> None:
    """Products with weights of every width."""
    packed = reference(ops.pack, inputs.codes(5, cols, bits, g), bits)
    for w_bits in BITS:
        weight = reference(ops.pack, inputs.codes(WEIGHT_ROWS, cols, w_bits, g), w_bits)
        args = (bits, cols, weight, w_bits, w_bits < 8 and cols % 2 == 0)
        product = reference(flat.gemm, packed, *args)
        for offset in range(w_bits, 64, 9):
            grid.compare("gemm", product, 1, flat.gemm, placed(packed, offset), *args)


def quantized(grid: Grid, bits: int, cols: int, g: torch.Generator) -> None:
    """Floats to codes, with scales per tensor, row and column."""
    for axis in (-1, 0, 1):
        x = torch.randn(5, cols, generator=g) * 3
        scale = torch.rand({-1: 1, 0: 5, 1: cols}[axis], generator=g) + 0.05
        args = (scale, torch.full_like(scale, float(1 << bits >> 1)), axis, bits)
        made = reference(ops.quantize_pack, x, *args)
        for offset in range(cols % STEP, 16, STEP):
            grid.compare("quantize_pack", made, 1, ops.quantize_pack, placed(x, offset), *args)


def main() -> None:
    """Runs the grid."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    grid, g = Grid(), inputs.generator()
    for bits in BITS:
        for cols in COLUMNS:
            rows_of(grid, bits, cols, g)
            products_of(grid, bits, cols, g)
            quantized(grid, bits, cols, g)
    for line in grid.wrong[:20]:
        print(line)
    for name, count in grid.count.items():
        print(f"{name:16} {count:,}")
    missing = [isa for isa in ("avx512", "amx") if isa not in inputs.COMPILED]
    record(
        Result(
            "R8",
            "Every instruction set gives the same bits",
            f"{' and '.join(inputs.COMPILED)} equal the reference in "
            f"{grid.count.total() - len(grid.wrong):,} of {grid.count.total():,} cases",
            grid.count.total(),
            len(grid.wrong),
            not grid.wrong and not missing,
            f"{' and '.join(missing)} did not run: this processor lacks them" if missing else "",
        ),
        started,
    )


if __name__ == "__main__":
    main()
