"""Valid calls of every operator: what opcheck checks, and where hostile arguments start from."""

from __future__ import annotations

from typing import Any

import torch
from operator_inputs import COMPILED, codes, generator, graph

from nodebits import ops
from nodebits.core.registry import CODINGS
from nodebits.core.row_layout import RowLayout
from nodebits.ops import (
    Edges,
    Epilogue,
    Joined,
    Mixed,
    Other,
    Output,
    Own,
    Product,
    Rounds,
    Sink,
    Source,
    Steps,
    Value,
    Weight,
)
from nodebits.ops.operator import Operator

Call = tuple[Operator[..., Any], tuple[Any, ...]]


def calls() -> list[Call]:
    """At least one valid call of every operator, so small that thousands of variants are tried."""
    g = generator()
    csr, square = graph([2, 0, 3], 5, g), graph([1, 0, 2, 3, 1], 5, g)
    x, one, eight = torch.randn(5, 8, generator=g), torch.ones(1), torch.ones(8)
    u = codes(5, 8, 4, g)
    packed = ops.pack(u, 4)
    where = RowLayout.of(torch.tensor([4, 1, 8, 1, 3]))
    places, shift = (where.widths, where.position), torch.zeros(5, dtype=torch.uint8)
    buckets = ops.quantize_pack_bucketed(x, one, torch.zeros(8), -1, *places)
    mixed = Mixed(buckets, where.order, list(where.counts), 8)
    source, weight, plain = Source(packed, 4, 8), Weight(packed, 4, True), Epilogue(torch.ones(5))
    blocks = ops.edge_blocks(*square, 5, (2, 3)) if COMPILED else None
    quantized = Sink(True, [Output(one, one, bits) for bits in (4, 8)])
    affine = quantized._replace(post_scale=torch.ones(5), post_shift=torch.ones(5))
    several = Sink(
        True,
        [
            Output(one, one, 4),
            Output(torch.ones(5), eight, 8, widths=places[0], position=places[1]),
            Output(one, eight, 8, widths=places[0], shift=shift),
        ],
    )
    floats = Sink()
    rows, whole = torch.ones(3, 2), torch.ones(3, dtype=torch.int32)
    own = Own(whole, whole, packed[:3].contiguous(), torch.tensor([1.5]))
    steps = Steps([0.0, 0.5], True, 0.1)
    rounds = Rounds(torch.ones(3, 8), torch.zeros(3, 8), torch.zeros(3, 8), [4, 8, 2])
    ends = Edges(*csr), source, Other(packed[:3].contiguous(), 4, 8)
    whole8, order = torch.ones(8, dtype=torch.int32), torch.tensor([4, 0, 3, 3, 1])
    mine = Source(packed[:3].contiguous(), 4, 8)
    weighed, outer = (*ends[:2], Other(*source)), Epilogue(torch.ones(72), None, None, rows[:, :1])
    met, levels = [source, mine, source, mine, source, source], torch.arange(768).byte()
    joined, placed = Joined(*source), Joined(*source, order)
    gates, weights = torch.arange(768).byte(), torch.arange(512).flip(0).byte()
    columns = Epilogue(eight)
    every = Epilogue(eight, eight, rows, rows, eight)
    coded = [
        Source(coding.encode(ops.pack(u % 2, bits), bits, 8), bits, 8, coding.number)
        for coding in map(CODINGS.get, CODINGS.names())
        for bits in coding.widths[:1]
    ]
    return [
        *((ops.spmm, (Edges(*csr), rows)) for rows in coded),
        (ops.pack, (u, 4)),
        (ops.unpack, (packed, 4, 8)),
        (ops.gather_rows, (source, csr[1], 1, 4, eight, eight, 1)),
        (ops.gather_rows, (source, csr[1], 0, 5, torch.ones(5), one, 0)),
        (ops.quantize_pack, (x, one, one, -1, 4, torch.ones(5))),
        (ops.fake_quantize, (x, one, one, -1, 4)),
        (ops.fake_quantize_backward, (x, x, one, one, -1, 4, 0)),
        (ops.gemm, (source, weight)),
        (ops.quantize_pack_bucketed, (x, one, torch.zeros(8), -1, *places, None)),
        (ops.unpack_bucketed, (mixed, shift)),
        (ops.nearest_group, (torch.rand(5, generator=g), torch.arange(3.0))),
        (ops.spmm, (Edges(*csr), source)),
        (ops.spmm, (Edges(*csr, codes(5, 2, 8, g)), source)),
        (ops.spmm, (Edges(*square, None, blocks), source)),
        (ops.propagate, (Edges(*square, None, blocks), x, torch.ones(5), rounds, steps)),
        (ops.propagate, (Edges(*square), x, None, rounds, steps)),
        (ops.rescale, (u.int(), Epilogue(eight, eight, torch.ones(5, 2)))),
        (ops.rescale_floats, (x, Epilogue(eight, eight, torch.ones(5, 2), None, eight))),
        (ops.rescale_backward, (x, x, Epilogue(eight, eight, torch.ones(5, 2)))),
        (ops.rescale_backward, (x, x, Epilogue(one, None, None, torch.ones(5, 1)))),
        (ops.edge_softmax, (*csr, x, x[:3].contiguous(), 0.2, 8)),
        (ops.fused_spmm, (Edges(*csr), source, Own(), columns, quantized)),
        (ops.fused_spmm, (Edges(*csr), source, Own(), columns, floats)),
        (ops.fused_spmm, (Edges(*csr), source, own, every, quantized)),
        (ops.fused_extremum, (Edges(*csr), source, False, every, quantized)),
        (ops.fused_extremum, (Edges(*csr), source, True, columns, floats)),
        *((ops.fused_extremum, (Edges(*csr), rows, False, columns, floats)) for rows in coded),
        (ops.neighbor_statistics, (Edges(*csr), source, [*range(6)], eight, one, None)),
        (ops.neighbor_statistics, (Edges(*csr), source, [*range(6)], eight, one, x[:3])),
        *(
            (ops.neighbor_statistics, (Edges(*csr), rows, [5, 2], one, eight, None))
            for rows in coded
        ),
        (ops.pair_scores, (*ends, [], None, None, rows[0], rows[1])),
        (ops.pair_scores, (*ends, [placed], whole8 * 3, whole8 * 4, rows[0], rows[1])),
        (ops.attention_codes, (*ends, [], whole8 * 3, whole8 * 4, rows[0], rows[1], 8)),
        (ops.attention_codes, (*ends, [joined], None, None, rows[0], rows[1], 4)),
        (ops.rectified_sum, (*ends[:2], [placed], whole8, one, eight)),
        (ops.rectified_sum, (*ends[:2], [joined], whole8, eight, one)),
        (ops.rectified_sum, (*ends[:2], [], whole8, eight, one)),
        (ops.rectified_softmax, (*ends[:2], [placed], whole8, weights, False, eight, one)),
        (ops.rectified_softmax, (*ends[:2], [], whole8, weights, True, one, eight)),
        (ops.gated_sum, (*ends, Value(*source), [], gates, 0, one, eight)),
        (ops.gated_sum, (*ends, Value(*source), [joined, placed], gates, 9, one, eight)),
        (ops.modulated_sum, (*ends[:2], torch.ones(3, 16), one, eight, torch.ones(3))),
        (ops.modulated_sum, (*ends[:2], torch.ones(3, 16), eight, one, None)),
        (ops.gated_product, (Edges(*csr), met[:4], None, levels, levels, one, False)),
        (ops.gated_product, (Edges(*csr), met, order, levels, levels, one, True)),
        (ops.fused_outer_sum, (*weighed, None, whole8, whole8, False, Epilogue(one), floats)),
        (ops.fused_outer_sum, (*weighed, order, whole8, whole8, True, outer, quantized)),
        *(
            (ops.attention_codes, (Edges(*square), r, Other(*r), [], None, None, one, one, 8))
            for r in coded
        ),
        (ops.fused_gemm, ([Product(source, weight, plain)], quantized)),
        (ops.fused_gemm, ([Product(source, weight, plain)] * 2, affine)),
        (ops.fused_gemm, ([Product(source, weight, plain)], several)),
        (ops.fused_gemm_bucketed, (mixed, weight, plain, several)),
        (ops.fused_gemm_bucketed, (mixed, weight, plain, floats)),
        (ops.coo_to_csr, (csr[1].long(), csr[1].long(), 5)),
        (ops.graph_attention, (x, x, x, torch.tensor([0, 0, 2, 2, 2]), 4)),
        (ops.graph_attention, (x, x, x, None, 1)),
    ]
