"""Steps on parts of every row's edges make, together, the bits of the step on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_inputs import codes, generator, graph, same
from torch import Tensor

from nodebits import ops
from nodebits.ops import Edges, Epilogue, Other, Output, Own, Sink, Source, Value
from nodebits.ops.operator import Operator
from nodebits.plan.kinds import SOURCES
from nodebits.plan.shares import SHARES, Share, is_divisible, share_of

PARTS, SOURCES_OF, COLUMNS, HEADS = 3, 40, 12, 2
# From fewer than parts to more than float32 adds exactly of products of two bytes.
DEGREES = [1, 2, 3, 40, 257, 258, 700, 3000]


def steps(bits: int) -> list[tuple[Operator[..., Any], tuple[Any, ...]]]:
    """Calls of every operator that is made of shares."""
    g = generator(bits)
    indptr, indices = graph(DEGREES, SOURCES_OF, g)
    rows = len(DEGREES)

    def packed(count: int) -> Source:
        return Source(ops.pack(codes(count, COLUMNS, bits, g), bits), bits, COLUMNS)

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    source, target, value = packed(SOURCES_OF), Other(*packed(rows)), Value(*packed(SOURCES_OF))
    edges = Edges(indptr, indices)
    weighted = edges._replace(weight=codes(indices.numel(), HEADS, 8, g))
    scale, zero = floats(COLUMNS).abs() + 0.1, floats(COLUMNS) * 3
    top = (1 << bits) - 1
    floor = torch.randint(0, top + 1, (COLUMNS,), generator=g, dtype=torch.int32)
    vector = torch.randint(-255, 256, (COLUMNS,), generator=g, dtype=torch.int32)
    small = floats(HEADS) / (255 * (1 << bits))
    exponentials = (255 * torch.exp(-torch.arange(512) / 40)).round().byte()
    gates = torch.randint(0, 256, (768,), generator=g, dtype=torch.uint8)
    epilogue = Epilogue(scale, zero, floats(rows, 1), floats(rows, 1).abs(), floats(COLUMNS))
    sink = Sink(True, [Output(torch.ones(1), torch.zeros(1), 4)])
    whole = torch.arange(rows, dtype=torch.int32)
    own = Own(whole + 1, whole, packed(rows).packed, torch.tensor([1.5]))
    scores = floats(SOURCES_OF, HEADS), floats(rows, HEADS)
    empty = torch.full((SOURCES_OF, HEADS), torch.nan)
    return [
        (ops.spmm, (edges, source)),
        (ops.spmm, (weighted, source)),
        (ops.fused_spmm, (edges, source, own, epilogue, sink)),
        (ops.fused_spmm, (weighted, source, Own(), epilogue, Sink())),
        (ops.fused_extremum, (edges, source, False, epilogue, sink)),
        (ops.fused_extremum, (edges, source, True, epilogue, Sink())),
        (ops.neighbor_statistics, (edges, source, [*range(6)], scale, zero, floats(rows, COLUMNS))),
        *((ops.neighbor_statistics, (edges, source, [k], scale, zero, None)) for k in range(6)),
        (ops.rectified_sum, (edges, source, [], floor, zero, scale)),
        *(
            (ops.rectified_softmax, (edges, source, [], floor, table, falling, zero, scale))
            for table in (exponentials, (torch.arange(512) == 0).byte())
            for falling in (False, True)
        ),
        (ops.gated_sum, (edges, source, target, value, [], gates, 100, zero, scale)),
        (ops.edge_softmax, (indptr, indices, *scores, 0.2, bits)),
        (ops.edge_softmax, (indptr, indices, empty, scores[1], 0.2, bits)),
        (ops.attention_codes, (edges, source, target, [], vector, floor, small, small, bits)),
        (ops.attention_codes, (edges, source, target, [], None, None, small, -small, 8)),
    ]


def apart(share: Share, edges: Edges) -> list[Tensor]:
    """The step's results, of edges that are dealt out to parts."""
    count = edges.indices.numel()
    of = torch.randint(0, PARTS, (count,), generator=generator(7))
    rows = torch.arange(edges.num_rows).repeat_interleave(edges.indptr.diff())
    places = [(of == part).nonzero().view(-1) for part in range(PARTS)]

    def taken(place: Tensor) -> Edges:
        ends = torch.bincount(rows[place], minlength=edges.num_rows).cumsum(0)
        weight = None if edges.weight is None else edges.weight[place]
        return Edges(torch.cat([ends.new_zeros(1), ends]), edges.indices[place], weight)

    everyone = torch.arange(edges.num_rows)
    parts = [share.on(taken(place), share.told()) for place in places]
    first = None
    if share.twice:
        top, *others = [part.first() for part in parts]
        for other in others:
            top.merge(everyone, other.values)
        first = top.values
    (pieces, codes_of), *rest = [part.second(first) for part in parts]
    for others, _ in rest:
        for piece, other in zip(pieces, others, strict=True):
            assert piece.joins == other.joins
            piece.merge(everyone, other.values)
    made = share.finished([piece.values for piece in pieces])
    if not share.of_edges:
        return made
    assert codes_of is not None
    all_codes = codes_of.new_zeros((count, codes_of.size(1)))
    for place, (_, found) in zip(places, [(pieces, codes_of), *rest], strict=True):
        assert found is not None
        all_codes[place] = found
    return [all_codes, *made]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_parts_of_the_edges_make_the_bits_of_all(bits: int) -> None:
    for number, (op, args) in enumerate(steps(bits)):
        expected = op(*args)
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        edges = args[0] if isinstance(args[0], Edges) else Edges(*args[:2])
        found = apart(share_of(op.name, op.flat(args)), edges)
        assert same(found, expected), (number, op.name)


def test_every_sum_over_neighbours_has_its_shares() -> None:
    assert set(SHARES) == set(SOURCES) == {op.name for op, _ in steps(4)}


def test_edges_with_rows_of_their_own_are_not_divided() -> None:
    args = ["v0", "v1", None, None, "v2", 4, 8, 0]
    tail = ["v3", "v4", "v5"]
    joined = [["v6"], [4], [8], [0], [None]]
    none: list[Any] = [[]] * 5
    assert is_divisible({"op": "rectified_sum", "args": [*args, *none, *tail]})
    assert not is_divisible({"op": "rectified_sum", "args": [*args, *joined, *tail]})
    assert not is_divisible({"op": "propagate", "args": []})
