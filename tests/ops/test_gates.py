"""Functions of codes at an edge: the same bits on every level, and what they mean."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import DEGREES, assert_all_levels_agree, codes, generator, graph
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError
from nodebits.ops import Edges, Source
from nodebits.ops.definitions.gates import LEVELS

SOURCES = 40


def rows(count: int, cols: int, bits: int, seed: int) -> tuple[Source, Tensor]:
    u = codes(count, cols, bits, generator(seed))
    return Source(ops.pack(u, bits), bits, cols), u


def edges_of(degrees: list[int]) -> Edges:
    return Edges(*graph(degrees, SOURCES, generator()))


def table(seed: int, most: int = 256) -> Tensor:
    return torch.randint(most, (LEVELS,), generator=generator(seed), dtype=torch.uint8)


def pairs(edges: Edges, cols: int, bits: int, features: int) -> list[tuple[Source, Tensor]]:
    """Rows of both ends twice, and twice those of edges where there are any."""
    counts = [SOURCES, edges.num_rows] * 2 + ([features] * 2 if features else [])
    widths = (bits, 9 - bits) * 3
    return [rows(n, cols, b, i) for i, (n, b) in enumerate(zip(counts, widths, strict=False))]


@pytest.mark.parametrize("bits", range(1, 9))
def test_modulated_sums_are_those_of_values(bits: int) -> None:
    edges = edges_of([0, 1, 2, 64, 0, 9])
    row = torch.repeat_interleave(torch.arange(6), edges.indptr.diff())
    for cols in (1, 7, 16, 33, 130):
        source, u = rows(SOURCES, cols, bits, cols)
        film = torch.randn(6, 2 * cols, generator=generator(1)) * 4
        scale, zero = torch.rand(cols, generator=generator(2)) + 0.01, torch.full((1,), 1.5)
        mean = torch.rand(6, generator=generator(3))
        for factor in (None, mean):
            args = edges, source, film, scale, zero, factor
            out = assert_all_levels_agree(ops.modulated_sum, *args)
            x = (u.double() - zero) * scale
            beta, gamma = film.double().chunk(2, 1)
            message = (gamma[row] * x[edges.indices] + beta[row]).clamp(min=0)
            wanted = torch.zeros(6, cols, dtype=torch.float64).index_add(0, row, message)
            wanted = wanted if factor is None else wanted * factor.view(-1, 1)
            torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bits", range(1, 9))
def test_products_of_tables_are_exact(bits: int) -> None:
    edges = edges_of([0, 1, 2, 63, 0, 9])
    count = edges.indices.numel()
    row = torch.repeat_interleave(torch.arange(6), edges.indptr.diff())
    order = torch.randperm(count, generator=generator())
    gates, values = table(0), table(1)
    for cols, features in ((1, 0), (16, count), (33, 0), (67, count)):
        found = pairs(edges, cols, bits, features)
        sources = [one for one, _ in found]
        for places in (order, None) if features else (None,):
            args = edges, sources, places, gates, values, torch.ones(1)
            out = assert_all_levels_agree(ops.gated_product, *args)
            product = torch.ones(count, cols)
            for i, one in enumerate((gates, values)):
                at = found[2 * i][1].int()[edges.indices] + found[2 * i + 1][1].int()[row]
                if features:
                    mine = found[4 + i][1].int()
                    at = at + (mine if places is None else mine[places])
                product = product * one[at].float()
            assert torch.equal(out, torch.zeros(6, cols).index_add(0, row, product))
            scaled = ops.gated_product(*args[:-1], torch.full((1,), 0.3))
            assert torch.equal(scaled, out * 0.3)
            most = assert_all_levels_agree(ops.gated_product, *args, True)
            index = row.view(-1, 1).expand_as(product)
            wanted = torch.zeros(6, cols).scatter_reduce(0, index, product, "amax")
            assert torch.equal(most, wanted)


def test_hubs_and_many_rows_are_cut() -> None:
    edges = edges_of([*DEGREES, *[3] * 2000, 20_000])
    found = [one for one, _ in pairs(edges, 24, 4, 0)]
    args = None, table(0), table(1), torch.full((1,), 0.5)
    assert_all_levels_agree(ops.gated_product, edges, found, *args)
    assert_all_levels_agree(ops.gated_product, edges, found, *args, True)
    film = torch.randn(edges.num_rows, 48, generator=generator())
    one = torch.ones(1)
    assert_all_levels_agree(ops.modulated_sum, edges, found[0], film, one, one * 7, None)


def test_the_order_of_edges_changes_nothing() -> None:
    edges = edges_of([7, 0, 30])
    back = torch.cat([part.flip(0) for part in edges.indices.split([7, 30])])
    film, one = torch.randn(3, 16, generator=generator()), torch.full((1,), 0.7)
    source = rows(SOURCES, 8, 5, 0)[0]
    args = source, film, one, one, None
    assert torch.equal(
        ops.modulated_sum(edges, *args), ops.modulated_sum(Edges(edges.indptr, back), *args)
    )


def test_what_does_not_fit_is_refused() -> None:
    edges, one = edges_of([2, 1]), torch.ones(1)
    found = [source for source, _ in pairs(edges, 8, 4, 3)]
    with pytest.raises(ShapeError, match=r"film is \[2, 8\], expected \[2, 16\]"):
        ops.modulated_sum(edges, found[0], torch.ones(2, 8), one, one, None)
    with pytest.raises(ShapeError, match="row_scale has 3 values for 2"):
        ops.modulated_sum(edges, found[0], torch.ones(2, 16), one, one, torch.ones(3))
    tables = table(0), table(1), one
    with pytest.raises(ShapeError, match="got 5"):
        ops.gated_product(edges, found[:5], None, *tables)
    with pytest.raises(ShapeError, match=r"are \[2, 8\], expected \[40, 8\]"):
        ops.gated_product(edges, [found[0], found[1], found[1], found[1]], None, *tables)
    with pytest.raises(NodeIndexError, match=r"order\[2\] is 3"):
        ops.gated_product(edges, found, torch.tensor([0, 1, 3]), *tables)
    with pytest.raises(ShapeError, match="gates has 512 values for 768"):
        ops.gated_product(edges, found[:4], None, table(0)[:512], *tables[1:])
