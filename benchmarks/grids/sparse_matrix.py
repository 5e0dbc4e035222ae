"""As much of torch-sparse's ``SparseTensor`` as ``PANConv`` and ``PANPooling`` ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor


class SparseMatrix(SparseTensor):
    """Entries by row and column, of small matrices.

    Args:
        row: int64 ``[E]``.
        col: int64 ``[E]``.
        value: float ``[E]`` or None.
        sparse_sizes: Rows and columns.
    """

    def __init__(
        self, row: Tensor, col: Tensor, value: Tensor | None = None, sparse_sizes: Any = None
    ) -> None:
        self._sizes = sparse_sizes
        order = (row * sparse_sizes[1] + col).argsort(stable=True)
        self._row, self._col = row[order], col[order]
        self._value = None if value is None else value[order]

    @classmethod
    def eye(cls, rows: int, columns: int, **options: Any) -> SparseMatrix:
        """The identity; further options are those of torch-sparse, which say what it is anyway."""
        index = torch.arange(min(rows, columns))
        return cls(index, index, torch.ones(len(index)), (rows, columns))

    @property
    def storage(self) -> SparseMatrix:
        """What holds the entries: the matrix itself."""
        return self

    def row(self) -> Tensor:
        """Rows of the entries."""
        return self._row

    def col(self) -> Tensor:
        """Columns of the entries."""
        return self._col

    def value(self) -> Tensor | None:
        """Values of the entries."""
        return self._value

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """All three."""
        return self._row, self._col, self._value

    def rowcount(self) -> Tensor:
        """Entries of every row."""
        return torch.bincount(self._row, minlength=self._sizes[0])

    def has_value(self) -> bool:
        """Whether entries have values."""
        return self._value is not None

    def size(self, dim: int) -> int:
        """Rows or columns."""
        return int(self._sizes[dim])

    def sparse_sizes(self) -> Any:
        """Rows and columns."""
        return self._sizes

    def device(self) -> torch.device:
        """Where the entries are."""
        return self._row.device

    def fill_value(self, fill_value: float, dtype: Any = None) -> SparseMatrix:
        """The same entries, with one value."""
        return self._with(torch.full(self._row.shape, fill_value))

    def mul_nnz(self, factor: Tensor, layout: str) -> SparseMatrix:
        """The same entries, multiplied."""
        return self._with(factor * self._values())

    def coalesce(self) -> SparseMatrix:
        """Entries that stand more than once, added."""
        key, inverse = (self._row * self._sizes[1] + self._col).unique(return_inverse=True)
        value = torch.zeros(len(key)).index_add(0, inverse, self._values())
        row, col = key // self._sizes[1], key % self._sizes[1]
        return SparseMatrix(row, col, value, self._sizes)

    def dense(self) -> Tensor:
        """The matrix."""
        made = torch.zeros(self._sizes)
        return made.index_put((self._row, self._col), self._values(), accumulate=True)

    def __matmul__(self, other: SparseMatrix) -> SparseMatrix:
        row, col = ((self.dense() != 0).float() @ (other.dense() != 0).float()).nonzero().t()
        product = self.dense() @ other.dense()
        return SparseMatrix(row, col, product[row, col], (self._sizes[0], other._sizes[1]))

    def __mul__(self, factor: Tensor) -> SparseMatrix:
        by_row = factor.size(0) > 1
        return self._with(self._values() * factor.view(-1)[self._row if by_row else self._col])

    __rmul__ = __mul__

    def _values(self) -> Tensor:
        return torch.ones(self._row.shape) if self._value is None else self._value

    def _with(self, value: Tensor) -> SparseMatrix:
        return SparseMatrix(self._row, self._col, value, self._sizes)


def product(matrix: SparseMatrix, x: Tensor, reduce: str) -> Tensor:
    """A sparse matrix times a dense one, by sums."""
    made: Tensor = matrix.dense() @ x
    return made
