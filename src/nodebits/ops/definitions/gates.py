"""Functions of codes at an edge, summed as integers: modulated rows, and products of two tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.definitions.edges import check_indices
from nodebits.ops.definitions.pairs import affine_of, edge_parts, floats_of, plain_edges
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Source

#: Entries of a table that is read by the sum of three codes.
LEVELS = 768
_ENDS, _WITH_EDGES = 4, 6


class ModulatedSum(NamedTuple):
    """``sum_j max(gamma_i x_j + beta_i, 0)`` by column, from two integers per target.

    With ``slope = gamma * scale`` and ``offset = beta - slope * zero_point`` a summand is
    ``slope * u + offset``, which is above zero or not. Of those that are, the codes and their
    number are added as integers; ``(slope * codes + offset * number) * row_scale`` is the result,
    whatever the order of the edges.

    Args:
        edges: R targets, without weights.
        source: Rows u_j.
        film: float32 ``[R, 2 * C]``, beta and gamma side by side.
        scale: float32 ``[C]`` or one value.
        zero_point: Likewise.
        row_scale: float32 ``[R]``, or None for 1.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    source: Source
    film: Tensor
    scale: Tensor
    zero_point: Tensor
    row_scale: Tensor | None = None

    def checked(self) -> ModulatedSum:
        edges, source = plain_edges(self.edges, self.source)
        film = checks.tensor(self.film, "film", torch.float32, 2)
        shape = [edges.num_rows, 2 * source.num_cols]
        if list(film.shape) != shape:
            raise ShapeError(f"film is {list(film.shape)}, expected {shape}: beta and gamma")
        zero_point, scale = affine_of(self.zero_point, self.scale, source.num_cols)
        row_scale = self.row_scale
        if row_scale is not None:
            row_scale = checks.of_rows(row_scale, "row_scale", torch.float32, edges.num_rows)
        return ModulatedSum(edges, source, film, scale, zero_point, row_scale)

    def results(self) -> Result:
        return floats_of(self.edges, self.source)

    def compute(self) -> Tensor:
        edges, source, film, scale, zero_point, row_scale = self
        codes = source.codes().int()
        beta, gamma = film.chunk(2, 1)
        slope = gamma * scale
        offset = beta - slope * zero_point
        total = codes.new_zeros((edges.num_rows, source.num_cols))
        number = torch.zeros_like(total)
        for sources, rows, _ in edge_parts(edges, source.num_cols):
            u = codes.index_select(0, sources)
            above = slope.index_select(0, rows) * u.float() + offset.index_select(0, rows) > 0
            total.index_add_(0, rows, u * above)
            number.index_add_(0, rows, above.int())
        made = slope * total.float() + offset * number.float()
        return made if row_scale is None else made * row_scale.view(-1, 1)


modulated_sum = operator(ModulatedSum)


class GatedProduct(NamedTuple):
    """``scale * sum_j gates[a_j + a_i + a_ij] * values[b_j + b_i + b_ij]`` of codes a and b.

    The sum, or the largest; 0 for targets without edges.

    Args:
        edges: R targets, without weights.
        rows: a of sources and of targets, b of sources and of targets; then, where edges have
            rows, a and b of edges.
        order: int64 ``[E]``, the row of every edge; None where they come as the edges do.
        gates: uint8 ``[768]``, by the sum of codes a.
        values: uint8 ``[768]``, by that of codes b.
        scale: float32 ``[1]``.
        largest: Whether the largest is taken, in place of the sum.

    Returns:
        float32 ``[R, C]``; exact while the sums fit int32.
    """

    edges: Edges
    rows: list[Source]
    order: Tensor | None
    gates: Tensor
    values: Tensor
    scale: Tensor
    largest: bool = False

    def checked(self) -> GatedProduct:
        if len(self.rows) not in (_ENDS, _WITH_EDGES):
            raise ShapeError(f"rows are those of both ends, or of edges too: got {len(self.rows)}")
        edges, first = plain_edges(self.edges, self.rows[0])
        rows = [first, *(one.checked("rows") for one in self.rows[1:])]
        num_edges, order = edges.indices.numel(), self.order
        sources = first.packed.size(0)
        of_edges = rows[4].packed.size(0) if len(rows) == _WITH_EDGES else 0
        expected = [sources, edges.num_rows, sources, edges.num_rows, of_edges, of_edges]
        for one, count in zip(rows, expected, strict=False):
            if (one.packed.size(0), one.num_cols) != (count, first.num_cols):
                raise ShapeError(
                    f"rows that meet are [{one.packed.size(0)}, {one.num_cols}], expected "
                    f"[{count}, {first.num_cols}]"
                )
        if order is not None:
            order = checks.of_rows(order, "order", torch.int64, num_edges)
            check_indices(order, of_edges, "order")
        elif len(rows) == _WITH_EDGES and of_edges != num_edges:
            raise ShapeError(f"there are {of_edges} rows of edges for {num_edges} edges")
        return GatedProduct(
            edges,
            rows,
            order,
            checks.of_rows(self.gates, "gates", torch.uint8, LEVELS),
            checks.of_rows(self.values, "values", torch.uint8, LEVELS),
            checks.of_rows(self.scale, "scale", torch.float32, 1),
            self.largest,
        )

    def results(self) -> Result:
        return floats_of(self.edges, self.rows[0])

    def compute(self) -> Tensor:
        edges, rows, order, gates, values, scale, largest = self
        codes = [one.codes().int() for one in rows]
        acc = codes[0].new_zeros((edges.num_rows, rows[0].num_cols))
        tables = gates.int(), values.int()
        for sources, targets, part in edge_parts(edges, rows[0].num_cols):
            product: Tensor | int = 1
            for i, table in enumerate(tables):
                at = codes[2 * i].index_select(0, sources)
                at = at + codes[2 * i + 1].index_select(0, targets)
                if len(rows) == _WITH_EDGES:
                    mine = codes[_ENDS + i]
                    at = at + (mine[part] if order is None else mine[order[part]])
                product = product * table[at]
            assert isinstance(product, Tensor)
            if largest:  # a product is not below zero
                acc.scatter_reduce_(0, targets.view(-1, 1).expand_as(product), product, "amax")
            else:
                acc.index_add_(0, targets, product)
        return acc.float() * scale


gated_product = operator(GatedProduct)
