"""Sums of outer products, fused with what follows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nodebits.ops.backends.triton import sums
from nodebits.ops.backends.triton.finish import after_of, epilogue_of, results_of
from nodebits.ops.backends.triton.launch import sizes_of
from nodebits.ops.backends.triton.pairs import fields_of
from nodebits.ops.definitions.outer import FusedOuterSum
from nodebits.ops.definitions.products import check_indptr


def fused_outer_sum(given: FusedOuterSum) -> list[Tensor]:
    """See the definition."""
    edges, source, factors, order, zero, factor_zero, _, epilogue, sink = given
    check_indptr(edges.indptr, edges.indices.numel())
    num_cols = given.num_cols
    sizes = {
        **sizes_of("outer_rows", source.bits, num_cols),
        "BITS": source.bits,
        "OTHER_BITS": factors.other_bits,
        "UNIT": 0,
    }
    outer: tuple[Any, ...] = (
        *fields_of(factors), order, zero, factor_zero, source.num_cols,
        factors.other_cols,
    )  # fmt: skip
    of_edges = edges.indices, None, 1, outer
    plan = sums.Plan(fields_of(source), of_edges, num_cols, -(-num_cols // sizes["BLOCK"]), sizes)
    made = results_of(sink, source.packed, (edges.num_rows, num_cols))
    after = after_of(sink), made.floats, made.outputs
    then = (None, None), epilogue_of(epilogue), (None, None, 0), *after
    sums.fuse(plan, edges.indptr, then, source.bits)
    return made.tensors
