"""Reductions of neighbours other than sums: exact integers, then one rounding per operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.definitions.fused import finish, finished_rows
from nodebits.ops.definitions.products import edge_rows, spmm
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Epilogue, Sink, Source

# Elements gathered at once.
_CHUNK = 1 << 24


class Statistic(IntEnum):
    """What of the values of a row's edges; the numbers are those of the kernels."""

    SUM = 0
    MEAN = 1
    MAX = 2
    MIN = 3
    VAR = 4
    STD = 5


# A variance below this is none, as in PyG's StdAggregation.
LEAST_VARIANCE = 1e-5
_MOST_KINDS = 64


def extreme_codes(edges: Edges, source: Source, smallest: bool) -> Tensor:
    """The largest or smallest code of every row's neighbours, int32 ``[R, C]``; 0 without any."""
    num_edges, num_cols = edges.indices.numel(), source.num_cols
    rows = edge_rows(edges.indptr, num_edges)
    codes = source.codes().to(torch.int32)
    out = codes.new_zeros((edges.num_rows, num_cols))
    if smallest:
        out = out.masked_fill((edges.indptr.diff() > 0).view(-1, 1), 255)
    step = max(1, _CHUNK // max(1, num_cols))
    for e in range(0, num_edges, step):
        part = slice(e, min(e + step, num_edges))
        message = codes.index_select(0, edges.indices[part])
        index = rows[part].view(-1, 1).expand_as(message)
        out.scatter_reduce_(0, index, message, "amin" if smallest else "amax")
    return out


def _plain_edges(edges: Edges, source: Source, what: str) -> tuple[Edges, Source]:
    source = source.checked()
    if edges.weight is not None or edges.blocks is not None:
        raise ShapeError(f"{what} has no edge weights and no edge blocks: leave them out")
    return edges.checked(source.packed, "packed", source.num_cols), source


class FusedExtremum(NamedTuple):
    """The largest code of each row's neighbours, then as :func:`nodebits.ops.fused_spmm` goes on.

    Scales are positive, so the largest code stands for the largest value, also with a scale per
    column. A row without edges has code 0: a ``row_offset`` of 0 makes it the value 0.

    Args:
        edges: R targets, without weights.
        source: The rows that are compared.
        smallest: Whether the smallest code is taken.
        epilogue: From int32 codes to float rows.
        sink: What reads them.

    Returns:
        Packed rows per output; the float32 rows ``[R, C]`` alone where there is none.
    """

    edges: Edges
    source: Source
    smallest: bool
    epilogue: Epilogue
    sink: Sink

    def checked(self) -> FusedExtremum:
        edges, source = _plain_edges(self.edges, self.source, "a largest code")
        shape = edges.num_rows, source.num_cols
        epilogue, sink = self.epilogue.checked(*shape), self.sink.checked(*shape)
        return FusedExtremum(edges, source, bool(self.smallest), epilogue, sink)

    def results(self) -> list[Result]:
        return finished_rows(self.edges, self.source, self.sink)

    def compute(self) -> list[Tensor]:
        codes = extreme_codes(self.edges, self.source, self.smallest)
        return finish(self.epilogue.apply(codes), self.sink)


fused_extremum = operator(FusedExtremum)


class NeighborStatistics(NamedTuple):
    """Statistics of each row's neighbours, float32 ``[R, K * C]``, from one pass over the edges.

    Integers are exact: sums, extremes, and sums of squares, of which the zero point drops out,
    ``var = (n * sum(u^2) - sum(u)^2) / n^2 * scale^2``. ``std`` is 0 where the variance is at most
    1e-5, as PyG's is. Rows without edges have statistics of 0.

    Args:
        edges: R targets, without weights.
        source: The rows, ``(u - zero_point) * scale``.
        kinds: K numbers of :class:`Statistic`; the C columns of each stand side by side.
        scale: float32 ``[C]`` or one value.
        zero_point: float32 ``[C]`` or one value.
        moved: float32 ``[R, C]``, added to every value of a row's edges, or None.

    Returns:
        float32 ``[R, K * C]``; exact while the sums asked for fit int32.
    """

    edges: Edges
    source: Source
    kinds: list[int]
    scale: Tensor
    zero_point: Tensor
    moved: Tensor | None = None

    def checked(self) -> NeighborStatistics:
        edges, source = _plain_edges(self.edges, self.source, "a statistic")
        kinds = list(self.kinds)
        if not 1 <= len(kinds) <= _MOST_KINDS:
            raise ShapeError(f"kinds holds 1 to {_MOST_KINDS} statistics, got {len(kinds)}")
        if any(kind not in range(len(Statistic)) for kind in kinds):
            raise ShapeError(f"a statistic is 0 to {len(Statistic) - 1}, got {kinds}")
        shape = [edges.num_rows, source.num_cols]
        scale, offset, _ = checks.epilogue_columns(self.scale, self.zero_point, None, shape[1])
        assert offset is not None
        moved = self.moved
        if moved is not None:
            moved = checks.tensor(moved, "moved", torch.float32, 2)
            if list(moved.shape) != shape:
                raise ShapeError(f"moved must be {shape}, got {list(moved.shape)}")
        return NeighborStatistics(edges, source, kinds, scale, offset, moved)

    def results(self) -> Result:
        rows = self.edges.num_rows
        shape = rows, len(self.kinds) * self.source.num_cols
        return Result(shape, torch.float32, None, self.edges.indices.size(0) / max(rows, 1))

    def compute(self) -> Tensor:
        edges, source, asked = self.edges, self.source, self.integers
        made: dict[str, Tensor] = {}
        if "sum" in asked:
            made["sum"] = spmm.reference(edges, source)
        if "squares" in asked:
            made["squares"] = _squares(edges, source)
        for name in asked & {"max", "min"}:
            made[name] = extreme_codes(edges, source, name == "min")
        return self.finished(made)

    @property
    def integers(self) -> set[str]:
        """What :meth:`finished` asks for: ``sum``, ``squares``, ``max``, ``min``, or some of it."""
        asked = {Statistic(kind) for kind in self.kinds}
        found = {kind.name.lower() for kind in asked & {Statistic.MAX, Statistic.MIN}}
        spread = asked & {Statistic.VAR, Statistic.STD}
        sums = {"sum"} if spread | asked & {Statistic.SUM, Statistic.MEAN} else set()
        return found | sums | ({"squares"} if spread else set())

    def finished(self, integers: Mapping[str, Tensor]) -> Tensor:
        """The statistics, of what all edges of each row make together.

        Args:
            integers: int32 ``[R, C]`` each, see there: of codes their sum, that of their squares,
                the largest and the smallest, which are 0 without edges.
        """
        edges, _, kinds, scale, zero_point, moved = self
        degree = edges.indptr.diff()
        count = degree.float().view(-1, 1)
        inverse = torch.where(count > 0, 1.0 / count, 0.0)
        some = (count > 0).float()
        made: dict[Statistic, Tensor] = {}
        for kind in {Statistic(kind) for kind in kinds}:
            if kind in (Statistic.MAX, Statistic.MIN):
                extreme = integers[kind.name.lower()]
                made[kind] = Epilogue(scale, zero_point, some).apply(extreme)
                made[kind] = made[kind] if moved is None else made[kind] + moved * some
            elif kind in (Statistic.SUM, Statistic.MEAN):
                total = Epilogue(scale, zero_point, count).apply(integers["sum"])
                total = total if kind == Statistic.SUM else total * inverse
                times = count if kind == Statistic.SUM else some
                made[kind] = total if moved is None else total + moved * times
            else:
                squares, acc = integers["squares"].long(), integers["sum"].long()
                spread = degree.view(-1, 1) * squares - acc.square()
                variance = spread.float() * inverse * inverse * scale * scale
                made[kind] = variance if kind == Statistic.VAR else deviation(variance)
        return torch.cat([made[Statistic(kind)] for kind in kinds], 1)


neighbor_statistics = operator(NeighborStatistics)


def _squares(edges: Edges, source: Source) -> Tensor:
    """Sums of squared codes, int32 ``[R, C]``."""
    squares = source.codes().to(torch.int32).square()
    rows = edge_rows(edges.indptr, edges.indices.numel())
    total = squares.new_zeros((edges.num_rows, source.num_cols))
    step = max(1, _CHUNK // max(1, source.num_cols))
    for e in range(0, edges.indices.numel(), step):
        part = slice(e, e + step)
        total.index_add_(0, rows[part], squares.index_select(0, edges.indices[part]))
    return total


def deviation(variance: Tensor) -> Tensor:
    """The root of a variance, 0 where that is at most 1e-5."""
    # In float64: torch's root of a float32 is not rounded correctly on every machine.
    root = variance.clamp(min=LEAST_VARIANCE).double().sqrt().float()
    return root.masked_fill(root <= math.sqrt(LEAST_VARIANCE), 0.0)
