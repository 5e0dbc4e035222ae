"""Operators by name, from their checked arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodebits.ops.backends.triton import (
    attention,
    edges,
    gates,
    mixed,
    outer,
    pairs,
    products,
    propagate,
    reduce,
    rows,
    sums,
    training,
)
from nodebits.ops.operator import Operator

# What is missing runs as its definition, in torch on the device: a stable sort, for which torch has
# a kernel (docs/performance.md says so, a test compares).
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        attention.graph_attention,
        edges.edge_softmax,
        gates.gated_product,
        gates.modulated_sum,
        mixed.fused_gemm_bucketed,
        mixed.nearest_group,
        mixed.quantize_pack_bucketed,
        mixed.unpack_bucketed,
        outer.fused_outer_sum,
        pairs.attention_codes,
        pairs.gated_sum,
        pairs.pair_scores,
        pairs.rectified_softmax,
        pairs.rectified_sum,
        products.fused_gemm,
        products.gemm,
        products.rescale,
        propagate.propagate,
        reduce.fused_extremum,
        reduce.neighbor_statistics,
        rows.fake_quantize,
        rows.fake_quantize_backward,
        rows.gather_rows,
        rows.pack,
        rows.quantize_pack,
        rows.unpack,
        sums.fused_spmm,
        sums.spmm,
        training.rescale_backward,
        training.rescale_floats,
    )
}


def call(op: Operator[..., Any], checked: Any) -> Any:
    """The kernels of an operator on checked arguments, or its definition where it has none."""
    kernel = IMPLEMENTATIONS.get(op.name)
    return checked.compute() if kernel is None else kernel(checked)
