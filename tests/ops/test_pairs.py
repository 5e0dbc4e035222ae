"""Edges at which codes of two rows meet: the same bits on every level, and what they mean."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import DEGREES, assert_all_levels_agree, codes, generator, graph
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.ops import Edges, Other, Source, Value
from nodebits.ops.definitions.pairs import GATES

SOURCES = 40


def rows(count: int, cols: int, bits: int, seed: int) -> tuple[Source, Tensor]:
    u = codes(count, cols, bits, generator(seed))
    return Source(ops.pack(u, bits), bits, cols), u


def edges_of(degrees: list[int]) -> Edges:
    return Edges(*graph(degrees, SOURCES, generator()))


def ints(cols: int, low: int, high: int) -> Tensor:
    return torch.randint(low, high + 1, (cols,), generator=generator(1), dtype=torch.int32)


@pytest.mark.parametrize("bits", range(1, 9))
def test_attention_at_every_width(bits: int) -> None:
    edges, degrees = edges_of([0, 1, 2, 40, 0, 9]), 6
    for cols, heads in ((1, 1), (8, 2), (33, 3), (64, 4), (130, 10), (257, 1)):
        source, _ = rows(SOURCES, cols, bits, cols)
        target, _ = rows(degrees, cols, 9 - bits, cols + 1)
        factors = [torch.rand(heads, generator=generator(i)) / 300 for i in (2, 3)]
        vectors = ints(cols, -255, 255), ints(cols, 0, (1 << bits) - 1)
        for more in (vectors, (None, None)):
            assert_all_levels_agree(
                ops.attention_codes, edges, source, Other(*target), *more, *factors, 8
            )


def test_hubs_and_many_rows_are_cut() -> None:
    edges = edges_of([*DEGREES, *[3] * 2000, 20_000])
    source, target = rows(SOURCES, 24, 4, 0)[0], rows(edges.num_rows, 24, 4, 1)[0]
    factors = torch.full((2,), 0.01), torch.full((2,), -0.02)
    assert_all_levels_agree(
        ops.attention_codes, edges, source, Other(*target), None, None, *factors, 8
    )
    features = rows(edges.indices.numel(), 24, 4, 2)[0]
    args = ints(24, 0, 20), torch.zeros(1), torch.ones(1)
    assert_all_levels_agree(ops.rectified_sum, edges, source, Other(*features), None, *args)
    table = torch.randint(256, (GATES,), generator=generator(), dtype=torch.uint8)
    affine = torch.full((1,), 1.5), torch.rand(24, generator=generator())
    assert_all_levels_agree(
        ops.gated_sum, edges, source, Other(*target), Value(*source), table, *affine
    )


def test_the_largest_score_is_exact() -> None:
    cols = 16_000
    edges = Edges(torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32))
    u = torch.full((2, cols), 255, dtype=torch.uint8)
    u[1, 0] = 254
    source, target = Source(u, 8, cols), Other(u[:1].contiguous(), 8, cols)
    vector = torch.full((cols,), 255, dtype=torch.int32)
    args = vector, torch.zeros_like(vector), torch.tensor([2.0**-31]), torch.zeros(1)
    assert_all_levels_agree(ops.attention_codes, edges, source, target, *args, 8)
    # One code less is one 255th of a unit of 2^-31 less: the softmax sees nearly equal scores.
    found, _ = ops.attention_codes(edges, source, target, *args, 8)
    assert found.view(-1).tolist() == [255, 255]


def test_scores_are_those_of_values_but_for_what_all_edges_share() -> None:
    edges, bits, cols, slope = edges_of([3, 7, 0, 20]), 6, 12, 0.2
    source, u = rows(SOURCES, cols, bits, 0)
    target, t = rows(4, cols, bits, 1)
    scale, zero = 0.02, 17.0
    vector = ints(cols, -9, 9)
    x, y = ((v.double() - zero) * scale for v in (u, t))
    row = torch.repeat_interleave(torch.arange(4), edges.indptr.diff())
    both = x[edges.indices] + y[row]
    score = (torch.nn.functional.leaky_relu(both, slope) * vector).view(-1, 3, 4).sum(2)
    top = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    top.scatter_reduce_(0, row.view(-1, 1).expand(-1, 3), score, "amax")
    expected = (score - top[row]).exp() * 255
    floor = torch.full((cols,), int(2 * zero), dtype=torch.int32)
    factors = torch.full((3,), scale * (1 - slope)), torch.full((3,), scale * slope)
    found, row_sum = ops.attention_codes(edges, source, Other(*target), vector, floor, *factors, 8)
    assert float((found - expected).abs().max()) < 0.51
    assert torch.equal(row_sum, torch.zeros(4, 3, dtype=torch.int32).index_add(0, row, found.int()))


@pytest.mark.parametrize("bits", range(1, 9))
def test_sums_at_every_width(bits: int) -> None:
    edges = edges_of([0, 1, 2, 63, 64, 65, 130, 0, 9])
    order = torch.randperm(edges.indices.numel(), generator=generator())
    table = torch.randint(256, (GATES,), generator=generator(), dtype=torch.uint8)
    for cols in (1, 7, 15, 16, 17, 33, 64, 130, 257):
        source, u = rows(SOURCES, cols, bits, cols)
        features, v = rows(order.numel(), cols, 9 - bits, cols + 1)
        floor, scale = ints(cols, 0, 300), torch.rand(cols, generator=generator())
        zero = torch.randn(cols, generator=generator())
        args = edges, source, Other(*features), order, floor, zero * 0, scale * 0 + 1
        out = assert_all_levels_agree(ops.rectified_sum, *args)
        row = torch.repeat_interleave(torch.arange(9), edges.indptr.diff())
        message = (u[edges.indices].int() + v[order].int() - floor).clamp(min=0)
        assert torch.equal(out, torch.zeros(9, cols).index_add(0, row, message.float()))
        args = edges, source, Other(*features), None, floor, zero, scale
        assert_all_levels_agree(ops.rectified_sum, *args)
        target, t = rows(9, cols, bits, cols + 2)
        gated = edges, source, Other(*target), Value(*source), table
        assert_all_levels_agree(ops.gated_sum, *gated, zero, scale)
        out = assert_all_levels_agree(ops.gated_sum, *gated, zero * 0, scale * 0 + 1)
        gate = table[u[edges.indices].int() + t[row].int()].float()
        weighed = gate * u[edges.indices]
        assert torch.equal(out, torch.zeros(9, cols).index_add(0, row, weighed))


def test_what_does_not_fit_is_refused() -> None:
    edges, cols = edges_of([2, 1]), 8
    source, target = rows(SOURCES, cols, 4, 0)[0], Other(*rows(2, cols, 4, 1)[0])
    one, floor = torch.ones(1), torch.zeros(cols, dtype=torch.int32)
    scored = edges, source, target
    with pytest.raises(ShapeError, match="vector and floor come together"):
        ops.attention_codes(*scored, floor, None, one, one, 8)
    with pytest.raises(ShapeError, match="vector must hold -255 to 255, got 0 to 256"):
        bad = floor.clone()
        bad[3] = 256
        ops.attention_codes(*scored, bad, floor, one, one, 8)
    with pytest.raises(ShapeError, match="3 heads of 8 columns"):
        ops.attention_codes(*scored, None, None, torch.ones(3), torch.ones(3), 8)
    with pytest.raises(ShapeError, match="target has 40 rows for 2 rows of edges"):
        ops.attention_codes(edges, source, Other(*source), None, None, one, one, 8)
    with pytest.raises(ShapeError, match="features has 2 rows for 3 edges"):
        ops.rectified_sum(edges, source, target, None, floor, one, one)
    with pytest.raises(NodeIndexError, match=r"order\[2\] is 2"):
        ops.rectified_sum(edges, source, target, torch.tensor([0, 1, 2]), floor, one, one)
    with pytest.raises(ShapeError, match="floor must hold 0 to 511"):
        ops.rectified_sum(edges, source, target, torch.zeros(3).long(), floor - 1, one, one)
    with pytest.raises(ShapeError, match="table has 511 values for 512"):
        ops.gated_sum(edges, source, target, Value(*source), torch.zeros(511).byte(), one, one)
    weighted = edges._replace(weight=torch.ones(3, 1, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="no weights"):
        ops.gated_sum(weighted, source, target, Value(*source), torch.zeros(512).byte(), one, one)
