"""Valid calls of every operator: what opcheck checks, and where hostile arguments start from."""

from __future__ import annotations

from typing import Any

import torch
from operator_inputs import COMPILED, codes, generator, graph

from nodebits import ops
from nodebits.core.bucketed import RowLayout

Call = tuple[Any, tuple[Any, ...]]  # an operator of torch.ops.nodebits, its arguments


def calls() -> list[Call]:
    """At least one valid call of every operator, so small that thousands of variants are tried."""
    g = generator()
    indptr, indices = graph([2, 0, 3], 5, g)
    x, one = torch.randn(5, 8, generator=g), torch.ones(1)
    u = codes(5, 8, 4, g)
    packed = ops.pack(u, 4)
    acc = u.int()
    where = RowLayout.of(torch.tensor([4, 1, 8, 1, 3]))
    order, counts = where.order, list(where.counts)
    places = where.widths, where.position
    mixed = ops.quantize_pack_bucketed(x, one, torch.zeros(8), -1, *places)
    op = torch.ops.nodebits
    spmm = (indptr, indices, packed, 4, 8, *[None] * 4)
    product = ([packed], [4], [8], [packed], [4], [True], [torch.ones(5)], [None], [None], [None])
    quantizer = ([one, one], [one, one], [4, 8], [None, None], [], [], [])
    eight, wide = torch.ones(8), where.widths
    shift = torch.zeros(5, dtype=torch.uint8)
    several = (
        *([one, torch.ones(5), one], [one, eight, eight], [4, 8, 8], [None] * 3),
        *([None, wide, wide], [None, where.position, None], [None, None, shift]),
    )
    steps = torch.ones(3, 8), torch.zeros(3, 8), torch.zeros(3, 8), [4, 8, 2], [0.0, 0.5], True, 0.1
    square = graph([1, 0, 2, 3, 1], 5, g)
    regrouped = ops.edge_blocks(*square, 5, (2, 3)) if COMPILED else None
    own, own_factor = packed[:3].contiguous(), torch.tensor([1.5])
    whole, rows = torch.ones(3, dtype=torch.int32), torch.ones(3, 2)
    summed = (whole, whole, torch.ones(8), torch.ones(8), rows, rows, torch.ones(8), own)
    product_of_mixed = (mixed, order, counts, 8, packed, 4, True, torch.ones(5), *[None] * 4)
    return [
        (op.pack.default, (u, 4)),
        (op.unpack.default, (packed, 4, 8)),
        (op.quantize_pack.default, (x, one, one, -1, 4, torch.ones(5))),
        (op.fake_quantize.default, (x, one, one, -1, 4)),
        (op.fake_quantize_backward.default, (x, x, one, one, -1, 4, 0)),
        (op.gemm.default, (packed, 4, 8, packed, 4, True)),
        (op.quantize_pack_bucketed.default, (x, one, torch.zeros(8), -1, *places)),
        (op.unpack_bucketed.default, (mixed, order, counts, 8, torch.zeros(5).byte())),
        (op.nearest_group.default, (torch.rand(5), torch.arange(3.0))),
        (op.spmm.default, (indptr, indices, packed, 4, 8)),
        (op.spmm_weighted.default, (indptr, indices, packed, 4, 8, codes(5, 2, 8, g))),
        (op.spmm.default, (*square, packed, 4, 8, regrouped)),
        (op.propagate.default, (*square, x, torch.ones(5), *steps, regrouped)),
        (op.propagate.default, (*square, x, None, *steps)),
        (op.rescale.default, (acc, torch.ones(8), torch.ones(8), torch.ones(5, 2))),
        (op.edge_softmax.default, (indptr, indices, x, x[:3].contiguous(), 0.2, 8)),
        (op.fused_spmm.default, (*spmm, torch.ones(8), *[None] * 6, True, *quantizer)),
        (op.fused_spmm.default, (*spmm, torch.ones(8), *[None] * 6, False, *[[]] * 7)),
        (op.fused_spmm.default, (*spmm[:7], *summed, own_factor, True, *quantizer)),
        (op.fused_gemm.default, (*product, True, *quantizer)),
        (op.fused_gemm.default, (*product, True, *quantizer, torch.ones(5), torch.ones(5))),
        (op.fused_gemm.default, (*product, True, *several)),
        (op.fused_gemm_bucketed.default, (*product_of_mixed, True, *several)),
        (op.fused_gemm_bucketed.default, (*product_of_mixed, True, *[[]] * 7)),
        (op.coo_to_csr.default, (indices.long(), indices.long(), 5)),
    ]
