"""Extremes and statistics of neighbours: the same bits on every level, and what PyG computes."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import COLUMNS, DEGREES, assert_all_levels_agree, codes, generator, graph
from torch import Tensor
from torch_geometric.nn.aggr import StdAggregation, VarAggregation

from nodebits import ops
from nodebits.core.errors import ShapeError
from nodebits.ops import Edges, Epilogue, Output, Sink, Source, Statistic

SOURCES = 40


def made(bits: int, cols: int, degrees: list[int]) -> tuple[Edges, Source, Tensor, Tensor]:
    g = generator(bits * 1000 + cols)
    indptr, indices = graph(degrees, SOURCES, g)
    u = codes(SOURCES, cols, bits, g)
    return Edges(indptr, indices), Source(ops.pack(u, bits), bits, cols), u, indptr


@pytest.mark.parametrize("bits", range(1, 9))
def test_extremes_at_every_width(bits: int) -> None:
    for cols in COLUMNS:
        edges, source, u, indptr = made(bits, cols, [0, 1, 2, 3, 0, 9, 40])
        for smallest in (False, True):
            one = Epilogue(torch.ones(1), None)
            out = assert_all_levels_agree(ops.fused_extremum, edges, source, smallest, one, Sink())
            for row in range(len(indptr) - 1):
                rows = u[edges.indices[indptr[row] : indptr[row + 1]]].float()
                take = rows.amin if smallest else rows.amax
                expected = take(0) if len(rows) else torch.zeros(cols)
                assert torch.equal(out[0][row], expected), (bits, cols, smallest, row)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_sink_reads_extremes(bits: int) -> None:
    edges, source, _, indptr = made(bits, 100, [0, 3, 18, 1])
    some = (indptr.diff() > 0).float().view(-1, 1)
    scale = torch.rand(100, generator=generator()) + 0.1
    epilogue = Epilogue(scale, torch.full((100,), 1.5), some)
    sink = Sink(True, [Output(torch.ones(1) / 8, torch.zeros(1), 4), Output(scale, scale, 8)])
    assert_all_levels_agree(ops.fused_extremum, edges, source, False, epilogue, sink)
    floats = ops.fused_extremum(edges, source, True, epilogue, Sink())[0]
    assert torch.equal(floats[0], torch.zeros(100))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8])
def test_statistics_at_every_width_and_degree(bits: int) -> None:
    kinds = [*map(int, Statistic)]
    for cols in (1, 8, 33, 65, 130, 300):
        edges, source, *_ = made(bits, cols, DEGREES)
        scale = torch.rand(cols, generator=generator()) / 10 + 0.01
        zero, moved = torch.tensor([1.25]), torch.randn(len(DEGREES), cols, generator=generator())
        for more in (None, moved):
            assert_all_levels_agree(
                ops.neighbor_statistics, edges, source, kinds, scale, zero, more
            )


def test_a_hub_is_cut_into_pieces() -> None:
    edges, source, *_ = made(4, 40, [3, 40_000, 0, 7])
    kinds = [*map(int, Statistic)]
    one = torch.ones(1)
    assert_all_levels_agree(ops.neighbor_statistics, edges, source, kinds, one, one)
    assert_all_levels_agree(ops.fused_extremum, edges, source, True, Epilogue(one), Sink())


def test_they_are_pyg_s() -> None:
    edges, source, u, indptr = made(8, 20, [0, 1, 5, 300, 2])
    scale, zero = torch.rand(20, generator=generator()) / 50 + 0.001, torch.tensor([128.0])
    values = (u.float() - zero) * scale
    rows = torch.repeat_interleave(torch.arange(5), indptr.diff())
    kinds = [Statistic.VAR, Statistic.STD]
    out = ops.neighbor_statistics(edges, source, [*map(int, kinds)], scale, zero)
    taken = values[edges.indices].double()
    aggregations = (VarAggregation(), StdAggregation())
    for part, aggregation in zip(out.split(20, 1), aggregations, strict=True):
        expected = aggregation(taken, rows, dim_size=5).float()
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("kinds", "match"), [([], "1 to 64"), ([0] * 65, "1 to 64"), ([6], "0 to 5"), ([-1], "0 to 5")]
)
def test_other_statistics_are_refused(kinds: list[int], match: str) -> None:
    edges, source, *_ = made(4, 8, [2, 3])
    with pytest.raises(ShapeError, match=match):
        ops.neighbor_statistics(edges, source, kinds, torch.ones(1), torch.ones(1))


def test_weights_and_blocks_are_refused() -> None:
    edges, source, *_ = made(4, 8, [2, 3])
    weighted = edges._replace(weight=torch.ones(5, 1, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="no edge weights"):
        ops.fused_extremum(weighted, source, False, Epilogue(torch.ones(1)), Sink())
    with pytest.raises(ShapeError, match="no edge weights"):
        ops.neighbor_statistics(weighted, source, [0], torch.ones(1), torch.ones(1))
