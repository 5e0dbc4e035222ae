"""Integer products, neighbour sums, and the epilogue that makes floats of both."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.core.packing import unpack
from nodebits.ops import checks
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Epilogue, Source, Weight

# Elements gathered at once by the neighbour sums.
_CHUNK = 1 << 24


def _check_gemm(source: Source, weight: Weight) -> tuple[Source, Weight]:
    source = source.checked("x_packed")
    weight = weight.checked(source.num_cols)
    return source, weight


def weight_values(weight: Weight, num_cols: int) -> Tensor:
    """Two's complement fields c to int32 ``[M, num_cols]``: ``c``, or ``2c + 1`` (midrise)."""
    sign = 1 << (weight.w_bits - 1)
    c = (unpack(weight.w_packed, weight.w_bits, num_cols).to(torch.int32) ^ sign) - sign
    return 2 * c + 1 if weight.midrise else c


@operator(
    _check_gemm,
    lambda source, weight: Result((source.packed.size(0), weight.w_packed.size(0)), torch.int32),
)
def gemm(source: Source, weight: Weight) -> Tensor:
    """Integer product of unsigned codes and signed weight rows.

    Args:
        source: N rows of K columns.
        weight: M rows of K columns.

    Returns:
        int32 ``[N, M]``; exact while it fits int32.
    """
    # float64 holds every partial sum exactly.
    x = source.codes().double()
    w = weight_values(weight, source.num_cols).double()
    return (x @ w.t()).to(torch.int64).to(torch.int32)


def check_indptr(indptr: Tensor, num_edges: int) -> None:
    """Raises GraphError unless ``indptr`` describes rows of ``num_edges`` edges."""
    descents = (indptr[1:] < indptr[:-1]).any()
    if int(indptr[0]) != 0 or int(indptr[-1]) != num_edges or bool(descents):
        raise GraphError(
            f"indptr must start at 0, not decrease and end at the number of edges, {num_edges}"
        )


def edge_rows(indptr: Tensor, num_edges: int) -> Tensor:
    """Row of every edge; raises as :func:`check_indptr`."""
    check_indptr(indptr, num_edges)
    degree = indptr[1:] - indptr[:-1]
    return torch.repeat_interleave(
        torch.arange(degree.numel(), device=indptr.device), degree, output_size=num_edges
    )


def _check_spmm(edges: Edges, source: Source) -> tuple[Edges, Source]:
    source = source.checked()
    return edges.checked(source.packed, "packed", source.num_cols), source


@operator(_check_spmm, lambda edges, source: Result((edges.num_rows, source.num_cols), torch.int32))
def spmm(edges: Edges, source: Source) -> Tensor:
    """Sums the codes of each row's neighbours, weighted where the edges are.

    Returns:
        int32 ``[R, C]``.
    """
    num_edges, num_cols = edges.indices.numel(), source.num_cols
    weight = edges.weight
    rows = edge_rows(edges.indptr, num_edges)
    codes = source.codes().to(torch.int32)
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


def _check_rescale(acc: Tensor, epilogue: Epilogue) -> tuple[Tensor, Epilogue]:
    acc = checks.tensor(acc, "acc", torch.int32, 2)
    epilogue = epilogue.checked(acc.size(0), acc.size(1))
    return acc, epilogue


@operator(_check_rescale, lambda acc, epilogue: Result(tuple(acc.shape), torch.float32))
def rescale(acc: Tensor, epilogue: Epilogue) -> Tensor:
    """The epilogue of int32 ``[N, C]``, float32 ``[N, C]``."""
    return epilogue.apply(acc)
