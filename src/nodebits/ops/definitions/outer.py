"""Sums over edges of the outer product of what stands on an edge with the row of its source."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.definitions.edges import check_indices
from nodebits.ops.definitions.fused import finish, finished
from nodebits.ops.definitions.pairs import bounded, edge_parts, plain_edges
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Epilogue, Other, Sink, Source, one_per_row

_MOST_CODE = 255


class FusedOuterSum(NamedTuple):
    """Sums of the same rows with K weights each, then as :func:`nodebits.ops.fused_spmm` goes on.

    Column ``k * C + c`` of a target is ``sum_j (f_jk - factor_zero_k) * (u_jc - zero_c)``, with the
    codes f of an edge and u of its source. With ``plain`` follow C columns whose factor is 1.

    Args:
        edges: R targets, without weights.
        source: Rows u_j of C columns.
        factors: Rows f of edges, of K columns.
        order: int64 ``[E]``, the row of every edge; None where they come as the edges do.
        zero: int32 ``[C]``, 0 to 255.
        factor_zero: int32 ``[K]``, 0 to 255.
        plain: Whether the sum of all rows is the last one.
        epilogue: From int32 sums to float rows, with one factor per row.
        sink: What reads them.

    Returns:
        As :func:`nodebits.ops.fused_spmm`, of ``K * C`` columns, or ``(K + 1) * C``; exact while
        the sums fit int32.
    """

    edges: Edges
    source: Source
    factors: Other
    order: Tensor | None
    zero: Tensor
    factor_zero: Tensor
    plain: bool
    epilogue: Epilogue
    sink: Sink

    @property
    def num_cols(self) -> int:
        """Columns of the result."""
        heads: int = self.factors.other_cols + int(self.plain)
        return heads * self.source.num_cols

    def checked(self) -> FusedOuterSum:
        edges, source = plain_edges(self.edges, self.source)
        factors, order = Source(*self.factors).checked("factors"), self.order
        count, num_edges = factors.packed.size(0), edges.indices.numel()
        if factors.num_cols < 1:
            raise ShapeError("factors has no columns: an edge has at least one factor")
        if order is not None:
            order = checks.of_rows(order, "order", torch.int64, num_edges)
            check_indices(order, count, "order")
        elif count != num_edges:
            raise ShapeError(f"factors has {count} rows for {num_edges} edges")
        shape = edges.num_rows, self._replace(plain=bool(self.plain)).num_cols
        epilogue, sink = self.epilogue.checked(*shape), self.sink.checked(*shape)
        one_per_row(epilogue)
        return FusedOuterSum(
            edges,
            source,
            Other(*factors),
            order,
            bounded(self.zero, "zero", source.num_cols, 0, _MOST_CODE),
            bounded(self.factor_zero, "factor_zero", factors.num_cols, 0, _MOST_CODE),
            bool(self.plain),
            epilogue,
            sink,
        )

    def results(self) -> list[Result]:
        rows = self.edges.num_rows
        work = self.edges.indices.size(0) / max(rows, 1)
        return finished(self.sink, rows, self.num_cols, work)

    def compute(self) -> list[Tensor]:
        return finish(self.epilogue.apply(self.sums()), self.sink)

    def sums(self) -> Tensor:
        """int32 ``[R, K * C]``, or ``[R, (K + 1) * C]``."""
        u = self.source.codes().int() - self.zero
        factors = Source(*self.factors).codes().int() - self.factor_zero
        if self.plain:
            factors = torch.cat([factors, factors.new_ones(factors.size(0), 1)], 1)
        acc = u.new_zeros((self.edges.num_rows, self.num_cols))
        for sources, rows, part in edge_parts(self.edges, self.num_cols):
            mine = factors[part] if self.order is None else factors[self.order[part]]
            product = mine.unsqueeze(2) * u.index_select(0, sources).unsqueeze(1)
            acc.index_add_(0, rows, product.flatten(1))
        return acc


fused_outer_sum = operator(FusedOuterSum)
