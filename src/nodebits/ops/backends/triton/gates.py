"""Functions of codes at an edge. A target's edges are read by one program, however many."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nodebits.ops.backends.triton.kernels import gates
from nodebits.ops.backends.triton.launch import launch, sizes_of
from nodebits.ops.backends.triton.pairs import fields_of
from nodebits.ops.definitions.gates import GatedProduct, ModulatedSum
from nodebits.ops.definitions.products import check_indptr
from nodebits.ops.records import Edges


def _sizes(
    kernel: str, bits: int, edges: Edges, num_cols: int
) -> tuple[tuple[int, int], dict[str, int]]:
    check_indptr(edges.indptr, edges.indices.numel())
    sizes = sizes_of(kernel, bits, num_cols)
    return (edges.num_rows, -(-num_cols // sizes["BLOCK"])), sizes


def modulated_sum(given: ModulatedSum) -> Tensor:
    """See the definition."""
    edges, source, film, scale, zero_point, row_scale = given
    num_cols = source.num_cols
    grid, sizes = _sizes("modulate", source.bits, edges, num_cols)
    out = film.new_empty((edges.num_rows, num_cols))
    affine = scale.expand(num_cols).contiguous(), zero_point.expand(num_cols).contiguous()
    launch(
        gates.modulate, grid, out, edges.indptr, edges.indices, fields_of(source), film, affine,
        row_scale, num_cols, out, BITS=source.bits, **sizes,
    )  # fmt: skip
    return out


def gated_product(given: GatedProduct) -> Tensor:
    """See the definition."""
    edges, rows, order, gate_table, value_table, scale, largest = given
    num_cols = rows[0].num_cols
    grid, sizes = _sizes("multiply_levels", rows[0].bits, edges, num_cols)
    out = scale.new_empty((edges.num_rows, num_cols))
    fields: list[Any] = [*map(fields_of, rows)]
    widths = [one.bits for one in rows]
    if len(rows) == 4:  # edges have no rows
        fields, widths = [*fields, (None, 0), (None, 0)], [*widths, 8, 8]
    gated, valued = (tuple(fields[i] for i in ends) for ends in ((0, 1, 4), (2, 3, 5)))
    asked: dict[str, Any] = {"WIDTHS": tuple(widths), "LARGEST": largest}
    launch(
        gates.multiply_levels, grid, out, edges.indptr, edges.indices, gated, valued, order,
        (gate_table, value_table), scale, num_cols, out, **asked, **sizes,
    )  # fmt: skip
    return out
