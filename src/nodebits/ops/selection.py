"""Some rows of a table, as they are: nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops import checks, host
from nodebits.ops.backends.cpu.kernels import kernels_for
from nodebits.ops.definitions.edges import check_indices


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` of a table; only these are read, also where it lies in a mapped file.

    A table in the host's memory that the device of the index can read (:mod:`nodebits.ops.host`)
    is read from there, and the rows are on that device.

    Args:
        table: ``[N, ...]`` of any dtype.
        index: int64 ``[n]``.

    Returns:
        ``[n, ...]``, a copy.

    Raises:
        NodeIndexError: If an index is not in ``[0, N)``.
        ShapeError: If the device of the index cannot read the table.
    """
    index = checks.tensor(index, "index", torch.int64, 1)
    if host.apart(table, index):
        host.check_readable(index.device, "the table", table)
        check_indices(index, table.size(0), "index")
        return host.take_rows(table, index)
    kernels = kernels_for(table)
    if kernels is None or not table.is_contiguous() or table.is_neg() or table.is_conj():
        check_indices(index, table.size(0), "index")
        return table.detach().index_select(0, index)
    out = table.new_empty((index.numel(), *table.shape[1:]))
    with _named(index, table.size(0)):
        kernels.take_rows(table.detach(), index, out, torch.get_num_threads())
    return out


def take_lists(indptr: Tensor, index: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
    """Some rows of different lengths.

    Args:
        indptr: int64 ``[N + 1]``, where rows begin in each of ``tables``.
        index: int64 ``[n]``.
        *tables: ``[entries]`` of any dtype.

    Returns:
        int64 ``[n + 1]``, where the taken rows begin, and their entries in each table.

    Raises:
        NodeIndexError: If an index is not in ``[0, N)``.
        ShapeError: If the device of the index cannot read a table.
    """
    index = checks.tensor(index, "index", torch.int64, 1)
    kernels = None if host.apart(indptr, index) else kernels_for(indptr)
    if kernels is None:
        check_indices(index, indptr.numel() - 1, "index")
        start, end = take_rows(indptr, index), take_rows(indptr, index + 1)
        ends = (end - start).cumsum(0)
        taken = torch.cat([ends.new_zeros(1), ends])
        shift = (start - taken[:-1]).repeat_interleave(end - start)
        places = shift + torch.arange(shift.numel(), device=shift.device)
        return taken, *(take_rows(table, places) for table in tables)
    threads = torch.get_num_threads()
    taken = indptr.new_empty(index.numel() + 1)
    with _named(index, indptr.numel() - 1):
        kernels.take_indptr(indptr, index, taken, threads)
    made = [table.new_empty(int(taken[-1])) for table in tables]
    for table, out in zip(tables, made, strict=True):
        kernels.take_lists(table.contiguous(), indptr, index, taken, out, threads)
    return taken, *made


@contextmanager
def _named(index: Tensor, rows: int) -> Iterator[None]:
    """Words the kernels' refusal of an index: looked at once, where nothing is wrong."""
    try:
        yield
    except ShapeError:
        check_indices(index, rows, "index")
        raise
