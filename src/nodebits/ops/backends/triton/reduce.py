"""Extremes and statistics of neighbours."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.core.packing import row_bytes
from nodebits.ops.backends.triton import sums
from nodebits.ops.backends.triton.finish import after_of, epilogue_of, results_of
from nodebits.ops.backends.triton.kernels import finish, reduce
from nodebits.ops.backends.triton.launch import launch, sizes_of, tiles
from nodebits.ops.definitions.products import check_indptr
from nodebits.ops.definitions.reduce import LEAST_VARIANCE, FusedExtremum, NeighborStatistics
from nodebits.ops.records import Edges, Source

_NO_CODE = 255
# The largest floats that count as no variance, and as no deviation.
_LIMITS = LEAST_VARIANCE, math.sqrt(LEAST_VARIANCE)


class _Plan(NamedTuple):
    """Arguments that all kernels of a reduction share."""

    rows: tuple[Tensor, int]
    num_tiles: int
    sizes: dict[str, int]
    long: sums.LongRows


def _plan(kernel: str, edges: Edges, source: Source) -> _Plan:
    check_indptr(edges.indptr, edges.indices.numel())
    source = sums.plain(source)
    bits, num_cols = source.bits, source.num_cols
    sizes = {"BITS": bits, **sizes_of(kernel, bits, num_cols)}
    rows = source.packed, row_bytes(num_cols, bits)
    return _Plan(rows, -(-num_cols // sizes["BLOCK"]), sizes, sums.long_rows(edges.indptr))


def _lines(plan: _Plan, num_cols: int, value: int) -> Tensor:
    """A line of int32 per long row; mostly there is none, and what follows starts nothing."""
    shape = plan.long.targets.numel(), num_cols
    return torch.full(shape, value, dtype=torch.int32, device=plan.rows[0].device)


def fused_extremum(given: FusedExtremum) -> list[Tensor]:
    """See the definition."""
    edges, source, smallest, epilogue, sink = given
    plan = _plan("extreme_rows", edges, source)
    num_rows, num_cols = edges.num_rows, source.num_cols
    made = results_of(sink, source.packed, (num_rows, num_cols))
    factors, after = epilogue_of(epilogue), after_of(sink)
    launch(
        reduce.extreme_rows, (num_rows, plan.num_tiles), source.packed, plan.rows, edges.indptr,
        edges.indices, num_cols, plan.long.limit, factors, after, made.floats, made.outputs,
        SMALLEST=smallest, **plan.sizes,
    )  # fmt: skip
    _, begins, ends, lines, _ = plan.long
    acc = _lines(plan, num_cols, _NO_CODE if smallest else 0)
    launch(
        reduce.extreme_parts, (lines.numel(), plan.num_tiles), acc, plan.rows, begins, ends,
        lines, edges.indices, num_cols, acc, SMALLEST=smallest, **plan.sizes,
    )  # fmt: skip
    grid, tile = tiles("finish_sums", *acc.shape)
    launch(
        finish.finish_sums, grid, acc, acc, plan.long.targets, acc.size(0), num_cols,
        (None, None), factors, (None, None, 0), after, made.floats, made.outputs,
        BITS=source.bits, **tile,
    )  # fmt: skip
    return made.tensors


def neighbor_statistics(given: NeighborStatistics) -> Tensor:
    """See the definition."""
    edges, source, kinds, scale, zero_point, moved = given
    plan = _plan("statistics_rows", edges, source)
    num_rows, num_cols = edges.num_rows, source.num_cols
    out = scale.new_empty((num_rows, len(kinds) * num_cols))
    asked: dict[str, Any] = {"KINDS": tuple(kinds)}
    then = (scale, zero_point), moved, _LIMITS, out
    launch(
        reduce.statistics_rows, (num_rows, plan.num_tiles), out, plan.rows, edges.indptr,
        edges.indices, num_cols, plan.long.limit, *then, **asked, **plan.sizes,
    )  # fmt: skip
    targets, begins, ends, lines, _ = plan.long
    totals = tuple(_lines(plan, num_cols, value) for value in (0, 0, 0, _NO_CODE))
    launch(
        reduce.statistics_parts, (lines.numel(), plan.num_tiles), out, plan.rows, begins, ends,
        lines, edges.indices, num_cols, totals, **plan.sizes,
    )  # fmt: skip
    launch(
        reduce.finish_statistics, (targets.numel(), plan.num_tiles), out, totals, targets,
        edges.indptr, num_cols, *then, **asked, BLOCK=plan.sizes["BLOCK"],
    )  # fmt: skip
    return out
