"""Edges regrouped for neighbour sums over tables that do not fit the cache next to a core."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebits.core.errors import GraphError, ShapeError, UnsupportedIsaError
from nodebits.core.indices import check_within
from nodebits.core.proven import recall, remember
from nodebits.ops import checks
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.ops.backends.cpu.kernels import kernels_for

_HEADER_WORDS = 6  # see csrc/run/edge_blocks.h
_MOST_ROWS = 1 << 40


def edge_block_sizes(
    num_rows: int, num_sources: int, num_edges: int, row_bytes: int
) -> tuple[int, int] | None:
    """Sizes for :func:`edge_blocks` that suit this machine, None where blocks would not pay.

    They pay for tables larger than the cache next to a core and many edges per row; never on the
    reference.

    Args:
        num_rows: R, targets.
        num_sources: S, rows of the table.
        num_edges: E.
        row_bytes: Bytes of a packed row, which decide how many sources fit.

    Returns:
        Targets in a group, sources in a block.
    """
    kernels = backend.compiled()
    if kernels is None:
        return None
    group_rows, block_rows = kernels.edge_blocks_plan(num_rows, num_sources, num_edges, row_bytes)
    return (group_rows, block_rows) if block_rows else None


def edge_blocks(
    indptr: Tensor, indices: Tensor, num_sources: int, sizes: tuple[int, int]
) -> Tensor:
    """Edges regrouped for ``spmm`` over a table that does not fit the cache next to a core.

    The edges between one group of targets and one block of sources stand together, as 16-bit
    positions in the block. Made once per graph, it takes about two bytes per edge; the sum reads
    it instead of ``indices`` and is the same to the last bit, for rows of any width.

    Args:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``, below ``num_sources``.
        num_sources: S.
        sizes: Targets in a group and sources in a block (at most 65536), of
            :func:`edge_block_sizes` or any others.

    Returns:
        uint8, for ``blocks`` of ``spmm``.

    Raises:
        ShapeError: If a size is out of range.
        NodeIndexError: If an index is.
        UnsupportedIsaError: Where no compiled kernels are in use.
    """
    given = indptr, indices
    indptr, indices = checks.csr(indptr, indices)
    check_within(indices, num_sources, "indices", "the table")
    group_rows, block_rows = sizes
    if not (0 < group_rows <= _MOST_ROWS and 0 < block_rows <= 1 << 16):
        raise ShapeError(
            f"edge blocks of group_rows {group_rows} and block_rows {block_rows}: they must be "
            "positive, and block_rows at most 65536"
        )
    kernels = kernels_for(indices)
    if kernels is None:
        raise UnsupportedIsaError("edge blocks are made and read by the compiled kernels only")
    size = kernels.edge_blocks_size(indptr.numel() - 1, num_sources, indices.numel(), *sizes)
    blocks = indices.new_empty(size, dtype=torch.uint8)
    kernels.fill_edge_blocks(indptr, indices, num_sources, *sizes, blocks, torch.get_num_threads())
    remember("blocks", True, blocks, *given)
    return blocks


def known_blocks(blocks: Tensor, indptr: Tensor, indices: Tensor, num_sources: int) -> Tensor:
    """Checks that ``blocks`` are those of this graph: remembered, or made again and compared.

    Raises:
        ShapeError: If ``blocks`` is no uint8 vector.
        GraphError: If they were made for another graph.
    """
    if recall("blocks", blocks, indptr, indices):
        return blocks
    flat = checks.tensor(blocks, "blocks", torch.uint8, 1)
    checks.same_device(("indices", indices), ("blocks", flat))
    kernels = kernels_for(flat)
    if kernels is None:
        return flat  # the reference reads the indices
    wrong = GraphError("blocks were made for another graph, or one of other sizes")
    if flat.numel() < 8 * _HEADER_WORDS:
        raise wrong
    words = flat[: 8 * _HEADER_WORDS].clone().view(torch.int64).tolist()
    graph = [indptr.numel() - 1, num_sources, indices.numel()]
    if words[1:4] != graph or not (0 < words[4] <= _MOST_ROWS and 0 < words[5] <= 1 << 16):
        raise wrong
    size = kernels.edge_blocks_size(*graph, *words[4:])
    if size != flat.numel():
        raise wrong
    if not torch.equal(edge_blocks(indptr, indices, num_sources, (words[4], words[5])), flat):
        raise wrong
    remember("blocks", True, blocks, indptr, indices)
    return flat
