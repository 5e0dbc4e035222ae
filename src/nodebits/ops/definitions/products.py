"""Integer products, neighbour sums, and the epilogue that makes floats of both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.core.outcomes import noted
from nodebits.core.packing import unpack
from nodebits.core.proven import EDGES_OF_POINTER, recall, remember
from nodebits.ops import checks
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Epilogue, Source, Weight

# Elements gathered at once by the neighbour sums.
_CHUNK = 1 << 24


def weight_values(weight: Weight, num_cols: int) -> Tensor:
    """Two's complement fields c to int32 ``[M, num_cols]``: ``c``, or ``2c + 1`` (midrise)."""
    sign = 1 << (weight.w_bits - 1)
    c = (unpack(weight.w_packed, weight.w_bits, num_cols).to(torch.int32) ^ sign) - sign
    return 2 * c + 1 if weight.midrise else c


class Gemm(NamedTuple):
    """Integer product of unsigned codes and signed weight rows.

    Args:
        source: N rows of K columns.
        weight: M rows of K columns.

    Returns:
        int32 ``[N, M]``; exact while it fits int32.
    """

    source: Source
    weight: Weight

    def checked(self) -> Gemm:
        source = self.source.checked("x_packed")
        return Gemm(source, self.weight.checked(source.num_cols))

    def results(self) -> Result:
        return Result((self.source.packed.size(0), self.weight.w_packed.size(0)), torch.int32)

    def compute(self) -> Tensor:
        # float64 holds every partial sum exactly.
        x = self.source.codes().double()
        w = weight_values(self.weight, self.source.num_cols).double()
        return (x @ w.t()).to(torch.int64).to(torch.int32)


gemm = operator(Gemm)


def check_indptr(indptr: Tensor, num_edges: int) -> None:
    """Raises GraphError unless ``indptr`` describes rows of edges; looked at once per tensor."""
    if recall(EDGES_OF_POINTER, indptr) == num_edges:
        return
    descents = (indptr[1:] < indptr[:-1]).any()
    if noted(lambda: (indptr[0] != 0) | (indptr[-1] != num_edges) | descents):
        return
    if int(indptr[0]) != 0 or int(indptr[-1]) != num_edges or bool(descents):
        raise GraphError(
            f"indptr must start at 0, not decrease and end at the number of edges, {num_edges}"
        )
    remember(EDGES_OF_POINTER, num_edges, indptr)


def edge_rows(indptr: Tensor, num_edges: int) -> Tensor:
    """Row of every edge; raises as :func:`check_indptr`."""
    check_indptr(indptr, num_edges)
    degree = indptr[1:] - indptr[:-1]
    return torch.repeat_interleave(
        torch.arange(degree.numel(), device=indptr.device), degree, output_size=num_edges
    )


class Spmm(NamedTuple):
    """Sums the codes of each row's neighbours, weighted where the edges are.

    Returns:
        int32 ``[R, C]``.
    """

    edges: Edges
    source: Source

    def checked(self) -> Spmm:
        source = self.source.checked()
        return Spmm(self.edges.checked(source.packed, "packed", source.num_cols), source)

    def results(self) -> Result:
        return Result((self.edges.num_rows, self.source.num_cols), torch.int32)

    def compute(self) -> Tensor:
        edges, num_cols = self.edges, self.source.num_cols
        num_edges, weight = edges.indices.numel(), edges.weight
        rows = edge_rows(edges.indptr, num_edges)
        codes = self.source.codes().to(torch.int32)
        out = codes.new_zeros((edges.num_rows, num_cols))
        step = max(1, _CHUNK // max(1, num_cols))
        for e in range(0, num_edges, step):
            part = slice(e, min(e + step, num_edges))
            message = codes.index_select(0, edges.indices[part])
            if weight is not None:
                heads = weight.size(1)
                factor = weight[part].to(torch.int32).unsqueeze(-1)
                message = (message.view(-1, heads, num_cols // heads) * factor).view(-1, num_cols)
            out.index_add_(0, rows[part], message)
        return out


spmm = operator(Spmm)


class Rescale(NamedTuple):
    """The epilogue of int32 ``[N, C]``, float32 ``[N, C]``."""

    acc: Tensor
    epilogue: Epilogue

    def checked(self) -> Rescale:
        acc = checks.tensor(self.acc, "acc", torch.int32, 2)
        return Rescale(acc, self.epilogue.checked(*acc.shape))

    def results(self) -> Result:
        return Result(tuple(self.acc.shape), torch.float32)

    def compute(self) -> Tensor:
        return self.epilogue.apply(self.acc)


rescale = operator(Rescale)
