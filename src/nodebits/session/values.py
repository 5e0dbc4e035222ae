"""Matrices with a row per node that grow with the graph."""

from __future__ import annotations

from torch import Tensor

from nodebits.ops.changing import add_difference, rewrite_rows
from nodebits.ops.selection import take_rows


class GrowingRows:
    """Rows with room behind them: new ones are zeros.

    Args:
        rows: Number of rows.
        like: Any rows: their type and the sizes behind the first.
    """

    def __init__(self, rows: int, like: Tensor) -> None:
        self._memory = like.new_zeros((rows, *like.shape[1:]))
        self._rows = rows

    @property
    def tensor(self) -> Tensor:
        """All rows, in the memory that is kept."""
        return self._memory[: self._rows]

    def resize(self, rows: int) -> None:
        """More rows."""
        if rows > self._memory.size(0):
            grown = self._memory.new_zeros((2 * rows, *self._memory.shape[1:]))
            grown[: self._rows] = self.tensor
            self._memory = grown
        self._rows = rows

    def take(self, index: Tensor) -> Tensor:
        """A copy of some rows."""
        return take_rows(self.tensor, index)

    def put(self, index: Tensor, rows: Tensor) -> None:
        """Writes some rows."""
        self._memory.index_copy_(0, index, rows)

    def rewrite(
        self, index: Tensor, rows: Tensor, first: int, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Writes rows that are others; see :func:`nodebits.ops.changing.rewrite_rows`."""
        return rewrite_rows(self.tensor, index, rows, first, keep)

    def add(self, index: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
        """Adds a difference; see :func:`nodebits.ops.changing.add_difference`."""
        return add_difference(self.tensor, index, plus, minus)
