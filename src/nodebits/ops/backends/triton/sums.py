"""Neighbour sums, plain and fused."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.codings.base import coding_of
from nodebits.core.outcomes import is_fixed
from nodebits.core.packing import row_bytes
from nodebits.core.proven import recall, remember
from nodebits.ops.backends.triton.finish import (
    NO_AFTER,
    NO_EPILOGUE,
    after_of,
    epilogue_of,
    own_of,
    results_of,
)
from nodebits.ops.backends.triton.kernels import finish, sums
from nodebits.ops.backends.triton.launch import launch, sizes_of, tiles
from nodebits.ops.definitions.fused import FusedSpmm
from nodebits.ops.definitions.products import Spmm, check_indptr
from nodebits.ops.records import Edges, Source

# A target of more edges is summed in parts of as many.
LONG_ROW = 2048
NEVER = 2**31 - 1


class LongRows(NamedTuple):
    """Targets of many edges, and the parts that their edges are summed in.

    Attributes:
        targets: int32 ``[L]``.
        begins: int64 ``[P]``, first edge of each part.
        ends: int64 ``[P]``.
        lines: int32 ``[P]``, place in ``targets`` of the part's.
        limit: Edges from which on a target is one of these.
    """

    targets: Tensor
    begins: Tensor
    ends: Tensor
    lines: Tensor
    limit: int


def plain(source: Source) -> Source:
    """With fields that are their codes."""
    if not source.coding:
        return source
    packed = coding_of(source.coding).decode(source.packed, source.bits, source.num_cols)
    return Source(packed, source.bits, source.num_cols)


def long_rows(indptr: Tensor) -> LongRows:
    """Found once per tensor. Where sizes may not follow from values, no row is a long one."""
    what = f"rows of more than {LONG_ROW} edges"
    known: LongRows | None = recall(what, indptr)
    if known is None and is_fixed():
        none = torch.empty(0, dtype=torch.int64, device=indptr.device)
        return LongRows(none.int(), none, none, none.int(), NEVER)
    if known is None:
        known = _long_rows(indptr)
        remember(what, known, indptr)
    return known


def _long_rows(indptr: Tensor) -> LongRows:
    degree = indptr.diff()
    targets = (degree > LONG_ROW).nonzero().view(-1)
    parts = (degree[targets] + LONG_ROW - 1) // LONG_ROW
    lines = torch.arange(targets.numel(), device=indptr.device).repeat_interleave(parts)
    before = parts.cumsum(0) - parts
    within = torch.arange(lines.numel(), device=indptr.device) - before[lines]
    begins = indptr[targets][lines] + within * LONG_ROW
    ends = torch.minimum(begins + LONG_ROW, indptr[targets + 1][lines])
    return LongRows(targets.int(), begins, ends, lines.int(), LONG_ROW)


class Plan(NamedTuple):
    """Arguments that all kernels of a sum share.

    Attributes:
        rows: Of sources, and their size in units.
        edges: Sources, weights or None, how many of them an edge has, and the factors of outer
            products or None.
        num_cols: Of the sums.
        num_tiles: Tiles of columns.
        sizes: Of a tile, and widths.
    """

    rows: tuple[Any, ...]
    edges: tuple[Any, ...]
    num_cols: int
    num_tiles: int
    sizes: dict[str, int]


def _plan(edges: Edges, source: Source) -> Plan:
    bits, num_cols, packed = source.bits, source.num_cols, source.packed
    size = row_bytes(num_cols, bits)
    heads = 1 if edges.weight is None else edges.weight.size(1)
    unit = 0
    if edges.weight is None and 8 % bits == 0:
        aligned = size % 4 == 0 and packed.storage_offset() % 4 == packed.data_ptr() % 4 == 0
        unit = 4 if aligned else 1
    if unit == 4:
        packed = packed.view(-1).view(torch.int32)
    degree = edges.indices.numel() // max(edges.num_rows, 1)
    tile = sizes_of("sum_rows", bits, unit, num_cols, degree)
    sizes = {"BITS": bits, "OTHER_BITS": 8, "UNIT": unit, **tile}
    tuple_of_edges = edges.indices, edges.weight, heads, None
    rows = packed, size // max(unit, 1)
    return Plan(rows, tuple_of_edges, num_cols, -(-num_cols // tile["BLOCK"]), sizes)


def _sum_parts(plan: Plan, found: LongRows, lines: Tensor, out: Tensor) -> None:
    grid = found.begins.numel(), plan.num_tiles
    parts = found.begins, found.ends, lines
    launch(
        sums.sum_parts, grid, out, plan.rows, *parts, plan.edges, plan.num_cols, out, **plan.sizes
    )


def spmm(given: Spmm) -> Tensor:
    """See the definition."""
    edges, source = given
    check_indptr(edges.indptr, edges.indices.numel())
    plan, found = _plan(edges, plain(source)), long_rows(edges.indptr)
    out = torch.zeros if found.targets.numel() else torch.empty
    acc = out((edges.num_rows, source.num_cols), dtype=torch.int32, device=source.packed.device)
    launch(
        sums.sum_rows, (edges.num_rows, plan.num_tiles), acc, plan.rows, edges.indptr, plan.edges,
        plan.num_cols, found.limit, acc, (None, None), NO_EPILOGUE, (None, None, 0), NO_AFTER, None,
        (), **plan.sizes, OWN_BITS=8,
    )  # fmt: skip
    _sum_parts(plan, found, found.targets[found.lines], acc)
    return acc


def fuse(plan: Plan, indptr: Tensor, then: tuple[Any, ...], own_bits: int) -> None:
    """Sums and what is fused with them.

    Args:
        plan: Of the sums.
        indptr: Checked row pointer.
        then: From the transform to quantizers, as kernels take them.
        own_bits: Width of own rows.
    """
    rows, edges, num_cols, num_tiles, sizes = plan
    found = long_rows(indptr)
    launch(
        sums.sum_rows, (indptr.numel() - 1, num_tiles), indptr, rows, indptr, edges, num_cols,
        found.limit, None, *then, **sizes, OWN_BITS=own_bits,
    )  # fmt: skip
    count = found.targets.numel()  # mostly there is none, and what follows starts nothing
    acc = torch.zeros((count, num_cols), dtype=torch.int32, device=indptr.device)
    _sum_parts(plan, found, found.lines, acc)
    grid, tile = tiles("finish_sums", count, num_cols)
    launch(
        finish.finish_sums, grid, acc, acc, found.targets, count, num_cols, *then, BITS=own_bits,
        **tile,
    )  # fmt: skip


def fused_spmm(given: FusedSpmm) -> list[Tensor]:
    """See the definition."""
    edges, source, own, epilogue, sink = given
    check_indptr(edges.indptr, edges.indices.numel())
    if own.own is not None:
        own = own._replace(own=plain(source._replace(packed=own.own)).packed)
    source = plain(source)
    made = results_of(sink, source.packed, (edges.num_rows, source.num_cols))
    then = (
        (own.acc_scale, own.acc_offset), epilogue_of(epilogue), own_of(own, source),
        after_of(sink), made.floats, made.outputs,
    )  # fmt: skip
    fuse(_plan(edges, source), edges.indptr, then, source.bits)
    return made.tensors
