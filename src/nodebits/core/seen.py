"""What calibration has shown a site: several calls count as one on all of their rows."""

from __future__ import annotations

import torch
from torch import Tensor

# Values kept per site. Up to here the union is exact; beyond, a share of rows stands for all.
KEPT_VALUES = 1 << 20


class SeenRows:
    """All rows seen, or, where they are too many, every k-th one and the extremes of each column.

    The rows are chosen by their number in the whole sequence, so that calls weigh by their rows and
    the same calls keep the same rows.

    Args:
        least: Rows to keep at least, however wide they are.
        values: Values to keep at most, but for that.
    """

    def __init__(self, least: int = 64, values: int = KEPT_VALUES) -> None:
        self.least, self.values = least, values
        self.clear()

    def clear(self) -> None:
        """Forgets all rows."""
        self._rows: Tensor | None = None
        self._extremes: Tensor | None = None
        self._stride, self._count = 1, 0

    def __bool__(self) -> bool:
        """Whether there are rows."""
        return self._rows is not None

    def add(self, x: Tensor) -> Tensor:
        """Takes rows in.

        Args:
            x: float32 ``[N, C]``, at least one value. Once C is another than before, as where a
                layer is used at several widths, all values make one column.

        Returns:
            ``x`` itself at the first call, then what stands for all rows: float32 ``[M, C]``.
        """
        first = self._rows is None
        if self._rows is not None and x.size(1) != self._rows.size(1):
            x = x.reshape(-1, 1)
            self._to_one_column()
        low, high = x.amin(0, keepdim=True), x.amax(0, keepdim=True)
        kept = x[(-self._count) % self._stride :: self._stride]
        self._count += x.size(0)
        if self._rows is None or self._extremes is None:
            rows, self._extremes = kept.clone(), torch.cat([low, high])
        else:
            rows = torch.cat([self._rows, kept])
            before = self._extremes
            self._extremes = torch.cat(
                [torch.minimum(before[:1], low), torch.maximum(before[1:], high)]
            )
        limit = max(self.values // max(x.size(1), 1), self.least)
        while rows.size(0) > limit:
            rows, self._stride = rows[::2].clone(), 2 * self._stride
        self._rows = rows
        return x if first else self.kept()

    def _to_one_column(self) -> None:
        rows, ends = self._rows, self._extremes
        if rows is not None and ends is not None:
            self._rows = rows.reshape(-1, 1)
            self._extremes = torch.stack([ends[0].amin(), ends[1].amax()]).view(2, 1)

    def kept(self) -> Tensor:
        """What stands for all rows so far, float32 ``[M, C]``; at least one call came before."""
        assert self._rows is not None and self._extremes is not None
        if self._stride == 1:
            return self._rows
        return torch.cat([self._rows, self._extremes])


class SeenParts:
    """:class:`SeenRows` of several groups of rows.

    Args:
        count: Groups.
    """

    def __init__(self, count: int) -> None:
        self._parts = [SeenRows() for _ in range(count)]

    def clear(self) -> None:
        """Forgets all rows."""
        for part in self._parts:
            part.clear()

    def __bool__(self) -> bool:
        """Whether there are rows."""
        return any(self._parts)

    def add(self, parts: list[Tensor]) -> list[Tensor]:
        """Takes the rows of every group in, none in some; returns what stands for all rows."""
        return [
            seen.add(x) if x.numel() else seen.kept() if seen else x
            for seen, x in zip(self._parts, parts, strict=True)
        ]
