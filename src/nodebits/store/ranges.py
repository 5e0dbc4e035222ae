"""The first pass over a matrix: is it finite, which range have its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import NonFiniteError
from nodebits.store.matrix import Matrix


@dataclass(frozen=True)
class Ranges:
    """Extremes by column.

    Attributes:
        low: float32 ``[C]``.
        high: float32 ``[C]``.
    """

    low: Tensor
    high: Tensor

    @property
    def signed(self) -> bool:
        """Whether any value is negative."""
        return bool((self.low < 0).any())


def checked_rows(matrix: Matrix, begin: int, end: int) -> Tensor:
    """Rows of a matrix.

    Raises:
        NonFiniteError: One holds NaN or infinity; it names the place in the matrix.
    """
    x = matrix.rows(begin, end)
    if bool(torch.isfinite(x.sum())):
        return x
    bad = ~torch.isfinite(x)
    if not bool(bad.any()):
        return x  # the sum alone overflowed
    row, column = (int(i) for i in bad.nonzero()[0])
    raise NonFiniteError(
        f"{matrix.name} has {x[row, column].item()} at row {begin + row}, column {column} (as "
        "float32): clean it before packing"
    )


def find_ranges(
    matrix: Matrix,
    chunk_rows: int,
    sample_rows: int | None,
    seed: int,
    progress: Callable[[int], object],
) -> Ranges:
    """Extremes of all rows, or of a sample of blocks of them.

    Args:
        matrix: What is looked at.
        chunk_rows: Rows that are held at once.
        sample_rows: Rows to look at, in blocks at places drawn from ``seed``; None for all.
        seed: Of the sample.
        progress: Told how many rows were read.

    Raises:
        NonFiniteError: As :func:`checked_rows`.
    """
    rows, columns = matrix.shape
    low = torch.zeros(columns, device="cpu")  # ranges contain zero
    high = low.clone()
    for begin, end in _blocks(rows, chunk_rows, sample_rows, seed):
        x = checked_rows(matrix, begin, end)
        if x.numel():
            low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
        progress(end - begin)
    return Ranges(low, high)


def _blocks(
    rows: int, chunk_rows: int, sample_rows: int | None, seed: int
) -> list[tuple[int, int]]:
    if sample_rows is None or sample_rows >= rows:
        return [(begin, min(begin + chunk_rows, rows)) for begin in range(0, rows, chunk_rows)]
    # Blocks, since a disk reads them as fast as single rows: 64 of them, or as many as there are.
    length = max(1, min(chunk_rows, sample_rows // 64 or 1))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(-(-rows // length), generator=generator, device="cpu")
    places = order[: -(-sample_rows // length)]
    return [(int(p) * length, min((int(p) + 1) * length, rows)) for p in places.sort().values]
