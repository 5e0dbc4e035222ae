"""Operators on packed rows: ``torch.ops.nodebits.*`` with typed entry points.

An operator is defined once, in ``definitions/``; what it takes are the records of ``records.py``;
``backends/`` has a folder per device.
"""

from nodebits.ops import backends
from nodebits.ops import fork as _fork  # noqa: F401  registers what a forked child does
from nodebits.ops.backends.cpu.kernels import (
    available_isas,
    current_isa,
    describe,
    force_isa,
    set_isa,
)
from nodebits.ops.definitions.attention import graph_attention
from nodebits.ops.definitions.edges import check_indices, coo_to_csr, edge_softmax, validate_csr
from nodebits.ops.definitions.fused import fused_gemm, fused_gemm_bucketed, fused_spmm
from nodebits.ops.definitions.gates import gated_product, modulated_sum
from nodebits.ops.definitions.mixed import nearest_group, quantize_pack_bucketed, unpack_bucketed
from nodebits.ops.definitions.outer import fused_outer_sum
from nodebits.ops.definitions.pairs import (
    attention_codes,
    gated_sum,
    pair_scores,
    rectified_softmax,
    rectified_sum,
)
from nodebits.ops.definitions.products import gemm, rescale, spmm
from nodebits.ops.definitions.propagate import Rounds, Steps, propagate
from nodebits.ops.definitions.reduce import Statistic, fused_extremum, neighbor_statistics
from nodebits.ops.definitions.rows import (
    fake_quantize,
    fake_quantize_backward,
    gather_rows,
    pack,
    quantize_pack,
    unpack,
)
from nodebits.ops.definitions.training import rescale_backward, rescale_floats
from nodebits.ops.edge_blocks import edge_block_sizes, edge_blocks
from nodebits.ops.records import (
    Edges,
    Epilogue,
    Joined,
    Mixed,
    Other,
    Output,
    Own,
    Product,
    Sink,
    Source,
    Value,
    Weight,
)

backends.register()

__all__ = [
    "Edges",
    "Epilogue",
    "Joined",
    "Mixed",
    "Other",
    "Output",
    "Own",
    "Product",
    "Rounds",
    "Sink",
    "Source",
    "Statistic",
    "Steps",
    "Value",
    "Weight",
    "attention_codes",
    "available_isas",
    "check_indices",
    "coo_to_csr",
    "current_isa",
    "describe",
    "edge_block_sizes",
    "edge_blocks",
    "edge_softmax",
    "fake_quantize",
    "fake_quantize_backward",
    "force_isa",
    "fused_extremum",
    "fused_gemm",
    "fused_gemm_bucketed",
    "fused_outer_sum",
    "fused_spmm",
    "gated_product",
    "gated_sum",
    "gather_rows",
    "gemm",
    "graph_attention",
    "modulated_sum",
    "nearest_group",
    "neighbor_statistics",
    "pack",
    "pair_scores",
    "propagate",
    "quantize_pack",
    "quantize_pack_bucketed",
    "rectified_softmax",
    "rectified_sum",
    "rescale",
    "rescale_backward",
    "rescale_floats",
    "set_isa",
    "spmm",
    "unpack",
    "unpack_bucketed",
    "validate_csr",
]
