"""Values per edge, and the order of edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.core.indices import check_within
from nodebits.core.outcomes import noted
from nodebits.ops import checks
from nodebits.ops.backends.cpu.kernels import kernels_for
from nodebits.ops.definitions.products import check_indptr, edge_rows
from nodebits.ops.operator import Result, operator

_INT32_MAX = 2**31 - 1


def exp_nonpositive(t: Tensor) -> Tensor:
    """``exp(t)`` for ``t <= 0``, the same float32 on every backend; exp(-87) below it and for NaN.

    ``t = k ln 2 + r`` with ln 2 split in two floats, a Taylor polynomial of degree 6 on
    ``|r| <= 0.347`` (relative error below 2e-7), and ``2^k`` put together in the exponent bits.
    """
    t = torch.where(t > -87.0, t, torch.full_like(t, -87.0))
    k = (t * 1.44269504088896341).round()
    r = (t - k * 0.693359375) - k * -2.12194440e-4
    p = torch.full_like(r, 1.3888889e-3)
    for c in (8.3333333e-3, 4.1666668e-2, 1.6666667e-1, 0.5, 1.0, 1.0):
        p = p * r + c
    return p * ((k.to(torch.int32) + 127) << 23).view(torch.float32)


class EdgeSoftmax(NamedTuple):
    """Integer softmax numerators of every edge and their row sums.

    Codes are ``rne(exp(e - max_row) * qmax)`` of ``e = leaky_relu(score_src[j] + score_dst[i])``. A
    NaN score counts as -inf; a row whose maximum is infinite gets codes 0.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``.
        score_src: float32 ``[S, H]``.
        score_dst: float32 ``[R, H]``.
        negative_slope: Of the leaky ReLU.
        bits: Width of the codes, 1 to 8.

    Returns:
        Codes uint8 ``[E, H]`` and row sums int32 ``[R, H]``.
    """

    indptr: Tensor
    indices: Tensor
    score_src: Tensor
    score_dst: Tensor
    negative_slope: float
    bits: int

    def checked(self) -> EdgeSoftmax:
        check_bits(self.bits)
        indptr, indices = checks.csr(self.indptr, self.indices)
        score_src = checks.tensor(self.score_src, "score_src", torch.float32, 2)
        score_dst = checks.tensor(self.score_dst, "score_dst", torch.float32, 2)
        checks.has_rows(indices, score_src, "score_src")
        shape = [indptr.numel() - 1, score_src.size(1)]
        if list(score_dst.shape) != shape:
            raise ShapeError(f"score_dst must be {shape}, got {list(score_dst.shape)}")
        return self._replace(
            indptr=indptr, indices=indices, score_src=score_src, score_dst=score_dst
        )

    def results(self) -> tuple[Result, Result]:
        heads = self.score_src.size(1)
        return (
            Result((self.indices.size(0), heads), torch.uint8),
            Result((self.indptr.size(0) - 1, heads), torch.int32),
        )

    def compute(self) -> tuple[Tensor, Tensor]:
        indptr, indices, score_src, score_dst, negative_slope, bits = self
        num_rows, heads = indptr.numel() - 1, score_src.size(1)
        rows = edge_rows(indptr, indices.numel())
        qmax = float((1 << bits) - 1)
        e = score_src.index_select(0, indices) + score_dst.index_select(0, rows)
        e = torch.where(e > 0, e, e * negative_slope)
        e = torch.where(e.isnan(), torch.full_like(e, -torch.inf), e)
        top = e.new_full((num_rows, heads), -torch.inf)
        if e.numel():
            top.scatter_reduce_(0, rows.view(-1, 1).expand_as(e), e, "amax")
        v = exp_nonpositive(e - top.index_select(0, rows)) * qmax
        codes = torch.where(v < qmax, v, torch.full_like(v, qmax)).round()
        row_sum = torch.zeros((num_rows, heads), dtype=torch.int32, device=e.device)
        row_sum.index_add_(0, rows, codes.to(torch.int32))
        return codes.to(torch.uint8), row_sum


edge_softmax = operator(EdgeSoftmax)


def _first_outside(values: Tensor, limit: int, name: str) -> int:
    kernels = kernels_for(values)
    if kernels is not None:
        return int(kernels.first_outside(values, name, limit, torch.get_num_threads()))
    bad = ((values < 0) | (values >= limit)).nonzero()
    return int(bad[0]) if bad.numel() else -1


def check_indices(values: Tensor, limit: int, name: str) -> None:
    """Raises NodeIndexError, naming the first bad edge, unless all values are in [0, limit).

    The compiled check refuses a vector whose address is no multiple of a value's size, with a
    ShapeError that names it.
    """
    if noted(lambda: ((values < 0) | (values >= limit)).any()):
        return
    at = _first_outside(values, limit, name)
    if at >= 0:
        raise NodeIndexError(f"{name}[{at}] is {int(values[at])}, outside [0, {limit})")


def validate_csr(indptr: Tensor, indices: Tensor, num_cols_nodes: int) -> None:
    """Checks a CSR structure once, so that the operators may trust its indices.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``.
        num_cols_nodes: Number of source nodes; every index must be below it.

    Raises:
        ShapeError: If a dtype or dimension is wrong.
        GraphError: If ``indptr`` does not start at 0, decreases, or does not end at ``E``.
        NodeIndexError: If an index is out of range.
    """
    indptr, indices = checks.csr(indptr, indices)
    check_indptr(indptr, indices.numel())
    check_within(indices, num_cols_nodes, "indices", "the table")


class CooToCsr(NamedTuple):
    """Sorts edges by row, keeping the order within a row.

    Args:
        row: int64 ``[E]`` in ``[0, num_rows)``.
        col: int64 ``[E]``, not negative, below ``2^31 - 1``.
        num_rows: R.

    Returns:
        indptr int64 ``[R + 1]``, indices int32 ``[E]`` and perm int64 ``[E]``, with
        ``indices = col[perm]``.

    Raises:
        NodeIndexError: If an index is out of range; names the edge and the value.
    """

    row: Tensor
    col: Tensor
    num_rows: int

    def checked(self) -> CooToCsr:
        row = checks.tensor(self.row, "row", torch.int64, 1)
        col = checks.tensor(self.col, "col", torch.int64, 1)
        if row.shape != col.shape or self.num_rows < 0:
            raise ShapeError(
                f"row and col need one length and num_rows >= 0, got {row.numel()}, "
                f"{col.numel()}, {self.num_rows}"
            )
        check_indices(row, self.num_rows, "row")
        check_indices(col, _INT32_MAX, "col")
        return CooToCsr(row, col, self.num_rows)

    def results(self) -> tuple[Result, Result, Result]:
        num_edges = self.row.size(0)
        return (
            Result((self.num_rows + 1,), torch.int64),
            Result((num_edges,), torch.int32),
            Result((num_edges,), torch.int64),
        )

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        row = self.row
        perm = torch.argsort(row, stable=True)
        indptr = torch.zeros(self.num_rows + 1, dtype=torch.int64, device=row.device)
        rows = torch.arange(self.num_rows + 1, device=row.device)
        # A search, since torch's count of the rows would wait for the device.
        torch.searchsorted(row.index_select(0, perm), rows, out=indptr)
        return indptr, self.col.index_select(0, perm).to(torch.int32), perm


coo_to_csr = operator(CooToCsr)
