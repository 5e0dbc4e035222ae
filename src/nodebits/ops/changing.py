"""Compressed rows that grow and shrink: the adjacency of a graph under updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nodebits.core.errors import UnsupportedIsaError
from nodebits.ops.backends.cpu.kernels import changing_rows, compiled, compiled_call


class SumChange(NamedTuple):
    """What a change adds to the sums of targets, and what it takes away.

    The columns of both are rows of a table that holds, one after another: the changed sources as
    they are, as they were, the sources of added edges and those of removed ones as they were.

    Attributes:
        targets: int64 ``[t]``, each once.
        plus_indptr: int64 ``[t + 1]``.
        plus: int32.
        minus_indptr: int64 ``[t + 1]``.
        minus: int32.
    """

    targets: Tensor
    plus_indptr: Tensor
    plus: Tensor
    minus_indptr: Tensor
    minus: Tensor


class ChangingRows:
    """Rows whose entries stay in the order in which they came.

    Args:
        indptr: int64 ``[N + 1]``.
        entries: int32 ``[E]``.
        weight: float32 ``[E]``, or None where entries have no weights.

    Raises:
        UnsupportedIsaError: Without the compiled kernels.
    """

    def __init__(self, indptr: Tensor, entries: Tensor, weight: Tensor | None = None) -> None:
        self._rows = changing_rows(indptr, entries, weight)
        self.weighted = weight is not None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._rows.rows)

    @property
    def num_entries(self) -> int:
        """Entries of all rows."""
        return int(self._rows.entries)

    def extend(self, more: int) -> None:
        """Adds rows without entries."""
        self._rows.extend(more)

    def append(self, rows: Tensor, entries: Tensor, weight: Tensor | None = None) -> None:
        """Adds an entry at the end of each of ``rows``.

        Args:
            rows: int64 ``[k]``; one may be named again.
            entries: int64 ``[k]``.
            weight: float32 ``[k]`` where entries have weights.
        """
        compiled_call(self._rows.append, rows, entries, weight)

    def remove(self, rows: Tensor, entries: Tensor) -> int:
        """Takes the last entry of that value out of each row.

        Args:
            rows: int64 ``[k]``.
            entries: int64 ``[k]``.

        Returns:
            -1; or the position of the first that is not there, and nothing is changed.
        """
        return int(compiled_call(self._rows.remove, rows, entries, True))

    def missing(self, rows: Tensor, entries: Tensor) -> int:
        """What :meth:`remove` would return; nothing is changed."""
        return int(compiled_call(self._rows.remove, rows, entries, False))

    def gather(self, rows: Tensor, loops: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Some rows as plain compressed ones.

        Args:
            rows: int64 ``[k]``.
            loops: Without weights and without entries of the row's own number, which comes last.

        Returns:
            int64 ``[k + 1]``, int32 ``[e]``, and float32 ``[e]`` or None.
        """
        made = [from_dlpack(one) for one in compiled_call(self._rows.gather, rows, loops)]
        return made[0], made[1], made[2] if self.weighted and not loops else None

    def counts(self, rows: Tensor, loops: bool = False) -> Tensor:
        """Entries of some rows as :meth:`gather` gives them, int64 ``[k]``."""
        found: Tensor = from_dlpack(compiled_call(self._rows.counts, rows, loops))
        return found

    def distinct(self, lists: Sequence[Tensor]) -> Tensor:
        """The rows that are named in int64 lists, each once, int64."""
        lists = [one for one in lists if one.numel()]
        if not lists:
            return torch.empty(0, dtype=torch.int64, device="cpu")
        found: Tensor = from_dlpack(compiled_call(self._rows.distinct, lists))
        return found

    def change(self, changed: Tensor, loops: bool, added: Tensor, removed: Tensor) -> SumChange:
        """What changes in sums over the rows that name a target, where these are rows of sources.

        Args:
            changed: int64 ``[k]``, sources whose rows are others now.
            loops: As :meth:`gather`.
            added: int64 ``[2, a]``, source and target of edges that came; they are in the rows.
            removed: int64 ``[2, r]``, of edges that went.
        """
        pairs: list[Any] = [*added.contiguous(), *removed.contiguous()]
        made = compiled_call(self._rows.change, changed, loops, *pairs)
        return SumChange(*[from_dlpack(one) for one in made])


def rewrite_rows(
    table: Tensor, index: Tensor, rows: Tensor, first: int, keep: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Writes those rows of a table whose bits are others than before.

    Args:
        table: ``[N, ...]``, contiguous.
        index: int64 ``[k]``, each row once.
        rows: ``[k, ...]`` of the same type.
        first: Rows from this one on are new: they count as others.
        keep: Whether the rows are returned as they were.

    Returns:
        int64 ``[c]``, the rows that were written; and ``[c, ...]`` with ``keep``, else None.
    """
    given = _bytes(table), index, _bytes(rows.contiguous()), first, keep, torch.get_num_threads()
    written, old = map(from_dlpack, _kernels().rewrite_rows(*given))
    if not keep:
        return written, None
    return written, old.view(table.dtype).view(written.numel(), *table.shape[1:])


def add_difference(table: Tensor, index: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """Adds what came to rows of a table and takes away what went.

    Args:
        table: int32 ``[N, C]``, changed.
        index: int64 ``[k]``, each row once.
        plus: int32 ``[k, C]``.
        minus: int32 ``[k, C]``.

    Returns:
        int32 ``[k, C]``: the rows as they are now.
    """
    out = torch.empty_like(plus)
    _kernels().add_difference(table, index, plus, minus, out, torch.get_num_threads())
    return out


def _kernels() -> Any:
    found = compiled()
    if found is None:
        raise UnsupportedIsaError("updates run on compiled kernels, which are not in use here")
    return found


def _bytes(rows: Tensor) -> Tensor:
    """Rows as bytes ``[n, bytes]``, in the same memory."""
    count = rows.size(0)
    flat = rows.view(count, -1) if rows.numel() else rows.new_empty((count, 0))
    return flat.view(torch.uint8)
