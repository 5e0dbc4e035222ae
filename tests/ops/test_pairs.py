"""Edges at which codes of two rows meet: the same bits on every level, and what they mean."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import DEGREES, assert_all_levels_agree, codes, generator, graph
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.ops import Edges, Joined, Other, Source, Value
from nodebits.ops.definitions.pairs import GATES, MOST_SCORED, SOFTMAX_WEIGHTS

SOURCES = 40


def rows(count: int, cols: int, bits: int, seed: int) -> tuple[Source, Tensor]:
    u = codes(count, cols, bits, generator(seed))
    return Source(ops.pack(u, bits), bits, cols), u


def edges_of(degrees: list[int]) -> Edges:
    return Edges(*graph(degrees, SOURCES, generator()))


def joined_to(edges: Edges, cols: int, bits: int) -> list[Joined]:
    """Rows of edges of two widths: as the edges come, and in another order."""
    count = edges.indices.numel()
    order = torch.randperm(count, generator=generator())
    made = [rows(count, cols, b, cols + b)[0] for b in (bits, 9 - bits)]
    return [Joined(*made[0]), Joined(*made[1], order)]


def ints(cols: int, low: int, high: int) -> Tensor:
    return torch.randint(low, high + 1, (cols,), generator=generator(1), dtype=torch.int32)


@pytest.mark.parametrize("bits", range(1, 9))
def test_attention_at_every_width(bits: int) -> None:
    edges, degrees = edges_of([0, 1, 2, 40, 0, 9]), 6
    for cols, heads in ((1, 1), (48, 3), (64, 1), (96, 3), (130, 10), (256, 2), (257, 1)):
        source, _ = rows(SOURCES, cols, bits, cols)
        target, _ = rows(degrees, cols, 9 - bits, cols + 1)
        factors = [torch.rand(heads, generator=generator(i)) / 300 for i in (2, 3)]
        floor = ints(cols, 0, (1 << bits) - 1)
        joined = joined_to(edges, cols, bits)
        for vector in (ints(cols, -128, 127), ints(cols, -255, 255), None):
            more = vector, None if vector is None else floor
            ends = edges, source, Other(*target)
            assert_all_levels_agree(ops.attention_codes, *ends, [], *more, *factors, 8)
            for some in ([joined[0]], [joined[1]]):
                assert_all_levels_agree(ops.pair_scores, *ends, some, *more, *factors)


def test_hubs_and_many_rows_are_cut() -> None:
    edges = edges_of([*DEGREES, *[3] * 2000, 20_000])
    source, target = rows(SOURCES, 24, 4, 0)[0], rows(edges.num_rows, 24, 4, 1)[0]
    factors = torch.full((2,), 0.01), torch.full((2,), -0.02)
    assert_all_levels_agree(
        ops.attention_codes, edges, source, Other(*target), [], None, None, *factors, 8
    )
    features = rows(edges.indices.numel(), 24, 4, 2)[0]
    args = ints(24, 0, 20), torch.zeros(1), torch.ones(1)
    assert_all_levels_agree(ops.rectified_sum, edges, source, [Joined(*features)], *args)
    table = torch.randint(256, (GATES,), generator=generator(), dtype=torch.uint8)
    affine = torch.full((1,), 1.5), torch.rand(24, generator=generator())
    assert_all_levels_agree(
        ops.gated_sum, edges, source, Other(*target), Value(*source), [], table, 3, *affine
    )


def test_the_largest_score_is_exact() -> None:
    cols = MOST_SCORED
    edges = Edges(torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32))
    u = torch.full((2, cols), 255, dtype=torch.uint8)
    u[1, 0] = 254
    source, target = Source(u, 8, cols), Other(u[:1].contiguous(), 8, cols)
    joined = [Joined(u[:1].expand(2, cols).contiguous(), 8, cols)]
    vector = torch.full((cols,), 255, dtype=torch.int32)
    args = vector, torch.zeros_like(vector), torch.ones(1), torch.zeros(1)
    found = assert_all_levels_agree(ops.pair_scores, edges, source, target, joined, *args)
    assert torch.equal(found, torch.tensor([[765 * 255 * cols], [765 * 255 * cols - 255]]).float())
    args = None, None, torch.ones(1), torch.zeros(1)
    found = assert_all_levels_agree(ops.pair_scores, edges, source, target, joined, *args)
    assert torch.equal(found, torch.tensor([[510 * 255 * cols], [510 * 255 * cols - 255]]).float())


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
    found, row_sum = ops.attention_codes(
        edges, source, Other(*target), [], vector, floor, *factors, 8
    )
    assert float((found - expected).abs().max()) < 0.51
    assert torch.equal(row_sum, torch.zeros(4, 3, dtype=torch.int32).index_add(0, row, found.int()))


@pytest.mark.parametrize("bits", range(1, 9))
def test_sums_at_every_width(bits: int) -> None:
    edges = edges_of([0, 1, 2, 9, 64, 65, 0])
    order = torch.randperm(edges.indices.numel(), generator=generator())
    table = torch.randint(256, (GATES,), generator=generator(), dtype=torch.uint8)
    for cols in (1, 15, 16, 17, 64, 130, 257):
        source, u = rows(SOURCES, cols, bits, cols)
        features, v = rows(order.numel(), cols, 9 - bits, cols + 1)
        floor, scale = ints(cols, 0, 300), torch.rand(cols, generator=generator())
        zero = torch.randn(cols, generator=generator())
        joined = Joined(*features, order)
        args = edges, source, [joined], floor, zero * 0, scale * 0 + 1
        out = assert_all_levels_agree(ops.rectified_sum, *args)
        row = torch.repeat_interleave(torch.arange(7), edges.indptr.diff())
        message = (u[edges.indices].int() + v[order].int() - floor).clamp(min=0)
        assert torch.equal(out, torch.zeros(7, cols).index_add(0, row, message.float()))
        for some in ([], [Joined(*features)]):
            assert_all_levels_agree(ops.rectified_sum, edges, source, some, floor, zero, scale)
        target, t = rows(7, cols, bits, cols + 2)
        gated = edges, source, Other(*target), Value(*source)
        more = [joined, Joined(*features)]
        assert_all_levels_agree(ops.gated_sum, *gated, [], table, 0, zero, scale)
        assert_all_levels_agree(ops.gated_sum, *gated, more, table, 90, zero, scale)
        plain = zero * 0, scale * 0 + 1
        out = assert_all_levels_agree(ops.gated_sum, *gated, more, table, 7, *plain)
        gate = table[u[edges.indices].int() + v[order].int() + t[row].int()].float() - 7
        weighed = gate * (u[edges.indices].int() + v)
        assert torch.equal(out, torch.zeros(7, cols).index_add(0, row, weighed))


@pytest.mark.parametrize("bits", range(1, 9))
def test_softmaxes_at_every_width(bits: int) -> None:
    edges = edges_of([0, 1, 2, 9, 31, 3, 0, 4])
    weights = torch.randint(256, (SOFTMAX_WEIGHTS,), generator=generator(), dtype=torch.uint8)
    weights[0] = 200
    hard = torch.zeros_like(weights)
    hard[0] = 1
    row = torch.repeat_interleave(torch.arange(8), edges.indptr.diff())
    for cols in (1, 17, 64, 130):
        source, u = rows(SOURCES, cols, bits, cols)
        floor, scale = ints(cols, 0, 1 << bits), torch.rand(cols, generator=generator())
        zero = torch.randn(cols, generator=generator())
        joined = joined_to(edges, cols, bits)
        for some in ([], [joined[0]], [joined[1]]):
            for falling in (False, True):
                args = edges, source, some, floor, weights, falling, zero, scale
                out = assert_all_levels_agree(ops.rectified_softmax, *args)
                assert not out[[0, 6]].any()
        args = edges, source, [], floor, hard, False, zero * 0, scale * 0 + 1
        out = assert_all_levels_agree(ops.rectified_softmax, *args)
        message = (u[edges.indices].int() - floor).clamp(min=0)
        most = torch.zeros(8, cols, dtype=torch.int32)
        most.scatter_reduce_(0, row.view(-1, 1).expand_as(message), message, "amax")
        assert torch.equal(out, most.float())


def test_a_table_of_exponentials_is_the_softmax() -> None:
    edges, bits, cols = edges_of([3, 7, 0, 20]), 6, 12
    source, u = rows(SOURCES, cols, bits, 0)
    row = torch.repeat_interleave(torch.arange(4), edges.indptr.diff())
    table = ((torch.arange(SOFTMAX_WEIGHTS) * -0.1).exp() * 255).round().byte()
    message = (u[edges.indices].double() - 20).clamp(min=0)
    weight = (message * 0.1).exp()
    total = torch.zeros(4, cols, dtype=torch.float64).index_add(0, row, weight)
    expected = torch.zeros(4, cols, dtype=torch.float64).index_add(0, row, weight * message)
    floor = torch.full((cols,), 20, dtype=torch.int32)
    found = ops.rectified_softmax(
        edges, source, [], floor, table, False, torch.zeros(1), torch.ones(1)
    )
    torch.testing.assert_close(
        found.double(), expected / total.clamp(min=1e-9), rtol=0.02, atol=0.02
    )


def test_what_does_not_fit_is_refused() -> None:
    edges, cols = edges_of([2, 1]), 8
    source, target = rows(SOURCES, cols, 4, 0)[0], Other(*rows(2, cols, 4, 1)[0])
    one, floor = torch.ones(1), torch.zeros(cols, dtype=torch.int32)
    scored = edges, source, target, []
    with pytest.raises(ShapeError, match="vector and floor come together"):
        ops.attention_codes(*scored, floor, None, one, one, 8)
    with pytest.raises(ShapeError, match="vector must hold -255 to 255, got 0 to 256"):
        bad = floor.clone()
        bad[3] = 256
        ops.attention_codes(*scored, bad, floor, one, one, 8)
    with pytest.raises(ShapeError, match="3 heads of 8 columns"):
        ops.attention_codes(*scored, None, None, torch.ones(3), torch.ones(3), 8)
    with pytest.raises(ShapeError, match="target has 40 rows for 2 rows of edges"):
        ops.attention_codes(edges, source, Other(*source), [], None, None, one, one, 8)
    joined = Joined(*target)
    with pytest.raises(ShapeError, match="joined has 2 rows for 3 edges"):
        ops.rectified_sum(edges, source, [joined], floor, one, one)
    with pytest.raises(NodeIndexError, match=r"joined_order\[2\] is 2"):
        placed = joined._replace(joined_order=torch.tensor([0, 1, 2]))
        ops.rectified_sum(edges, source, [placed], floor, one, one)
    placed = joined._replace(joined_order=torch.zeros(3).long())
    with pytest.raises(ShapeError, match="2 kinds of rows of edges join the sources: 0 or 1 may"):
        ops.rectified_sum(edges, source, [placed, placed], floor, one, one)
    with pytest.raises(ShapeError, match="floor must hold 0 to 511"):
        ops.rectified_sum(edges, source, [placed], floor - 1, one, one)
    weights = torch.zeros(SOFTMAX_WEIGHTS).byte()
    with pytest.raises(ShapeError, match=r"table\[0\] is 0"):
        ops.rectified_softmax(edges, source, [], floor, weights, False, one, one)
    gates, value = torch.zeros(GATES).byte(), Value(*source)
    with pytest.raises(ShapeError, match="table has 511 values for 768"):
        ops.gated_sum(edges, source, target, value, [], gates[:511], 0, one, one)
    with pytest.raises(ShapeError, match="gate_zero must be 0 to 255, got 256"):
        ops.gated_sum(edges, source, target, value, [], gates, 256, one, one)
    weighted = edges._replace(weight=torch.ones(3, 1, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="no weights"):
        ops.gated_sum(weighted, source, target, value, [], gates, 0, one, one)
