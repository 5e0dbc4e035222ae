"""spmm and spmm_weighted: every level returns the reference's sums, for any shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import (
    COLUMNS,
    COMPILED,
    DEGREES,
    assert_all_levels_agree,
    codes,
    generator,
    graph,
    misaligned,
    same,
)

import flat
from nodebits import ops
from nodebits.core.errors import NodeIndexError, ShapeError


@pytest.mark.parametrize("bits", range(1, 9))
def test_spmm_columns_and_degrees(bits: int) -> None:
    g = generator(bits)
    short = [d for d in DEGREES if d < 1000]
    for cols in COLUMNS:
        degrees = DEGREES if cols in (1, 33, 129) else short
        indptr, indices = graph(degrees, 23, g)
        packed = misaligned(ops.pack(codes(23, cols, bits, g), bits), cols % 7)
        out = assert_all_levels_agree(flat.spmm, indptr, indices, packed, bits, cols)
        assert not out[0].any()


@pytest.mark.parametrize("bits", range(1, 9))
def test_spmm_largest_codes_do_not_wrap_narrow_lanes(bits: int) -> None:
    for cols in (5, 64, 200):
        indptr, indices = graph(DEGREES, 3, generator())
        full = torch.full((3, cols), (1 << bits) - 1, dtype=torch.uint8)
        packed = ops.pack(full, bits)
        for isa in COMPILED:
            with ops.force_isa(isa):
                out = flat.spmm(indptr, indices, packed, bits, cols)
            expected = torch.tensor(DEGREES, dtype=torch.int32) * ((1 << bits) - 1)
            assert torch.equal(out, expected.view(-1, 1).expand_as(out)), isa


@pytest.mark.parametrize("bits", range(1, 9))
def test_weighted(bits: int) -> None:
    g = generator(bits)
    for cols in (1, 6, 16, 40, 64, 96, 128, 136, 260):
        indptr, indices = graph([0, 1, 2, 3, 4, 5, 0, 17, 301], 23, g)
        packed = misaligned(ops.pack(codes(23, cols, bits, g), bits), 5)
        for heads in (1, 2, 4, 8, 20, 65, 130):
            if cols % heads:
                continue
            weight = misaligned(codes(indices.numel(), heads, 8, g), 1)
            assert_all_levels_agree(flat.spmm_weighted, indptr, indices, packed, bits, cols, weight)


@pytest.mark.parametrize("bits", [4, 8])
def test_weighted_extremes(bits: int) -> None:
    indptr, indices = graph([0, 1, 3, 10_000], 2, generator())
    packed = ops.pack(torch.full((2, 65), 255, dtype=torch.uint8), bits)
    weight = torch.full((indices.numel(), 1), 255, dtype=torch.uint8)
    out = assert_all_levels_agree(flat.spmm_weighted, indptr, indices, packed, bits, 65, weight)
    assert int(out[3, 64]) == 10_000 * 255 * ((1 << bits) - 1)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 257),
    st.lists(st.integers(0, 40), max_size=12),
    st.integers(0, 63),
    st.integers(0, 2**20),
)
def test_spmm_any_shape(bits: int, cols: int, degrees: list[int], shift: int, seed: int) -> None:
    g = generator(seed)
    indptr, indices = graph(degrees, 7, g)
    packed = misaligned(ops.pack(codes(7, cols, bits, g), bits), shift)
    assert_all_levels_agree(flat.spmm, indptr, indices, packed, bits, cols)


def test_many_tasks_give_the_same_bytes() -> None:
    g = generator()
    degrees = torch.randint(0, 30, (5000,), generator=g).tolist()
    degrees[17] = 40_000  # a hub heavier than all other rows of its task
    indptr, indices = graph(degrees, 4000, g)
    packed = ops.pack(codes(4000, 96, 4, g), 4)
    weight = codes(indices.numel(), 8, 8, g)
    made = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        made.append(
            (
                flat.spmm(indptr, indices, packed, 4, 96),
                flat.spmm_weighted(indptr, indices, packed, 4, 96, weight),
            )
        )
    torch.set_num_threads(2)
    assert all(same(m, made[0]) for m in made)


def test_edge_order_does_not_matter() -> None:
    g = generator()
    indptr, indices = graph([500], 50, g)
    packed = ops.pack(codes(50, 33, 8, g), 8)
    shuffled = indices[torch.randperm(500, generator=g)]
    assert same(
        flat.spmm(indptr, indices, packed, 8, 33), flat.spmm(indptr, shuffled, packed, 8, 33)
    )


def test_empty() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    for rows, cols in ((0, 5), (3, 5), (3, 0), (0, 0)):
        indptr = torch.zeros(rows + 1, dtype=torch.int64)
        packed = ops.pack(torch.zeros(4, cols, dtype=torch.uint8), 4)
        out = assert_all_levels_agree(flat.spmm, indptr, none, packed, 4, cols)
        assert out.shape == (rows, cols)
        weight = torch.zeros(0, 1, dtype=torch.uint8)
        assert_all_levels_agree(flat.spmm_weighted, indptr, none, packed, 4, cols, weight)


def test_bad_structure_is_refused() -> None:
    packed = torch.zeros(3, 4, dtype=torch.uint8)
    indices = torch.zeros(2, dtype=torch.int32)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for indptr in ([0, 1], [1, 2], [0, 3, 2], [0, 5, 1, 2]):
                with pytest.raises(ValueError, match="indptr"):
                    flat.spmm(torch.tensor(indptr), indices, packed, 8, 4)
    good = torch.tensor([0, 2])
    with pytest.raises(ShapeError, match="int64"):
        flat.spmm(good.int(), indices, packed, 8, 4)
    with pytest.raises(NodeIndexError, match="0 rows"):
        flat.spmm(good, indices, packed[:0], 8, 4)
    with pytest.raises(ShapeError, match="weight"):
        flat.spmm_weighted(good, indices, packed, 8, 4, torch.zeros(2, 3, dtype=torch.uint8))


@pytest.mark.parametrize("bits", range(1, 9))
def test_edge_blocks_give_the_same_sums(bits: int) -> None:
    g = generator(bits)
    # Rows of more edges than 16 bits hold sums of, rows without edges, and blocks without edges.
    degrees = [5, 0, 70_000 if bits == 1 else 23_000, 1, *range(0, 300, 7), 0]
    indptr, indices = graph(degrees, 300, g)
    indices[indptr[4] : indptr[9]] = 299
    for cols in (1, 8, 33, 64, 100, 128, 130, 300):
        rows = codes(300, cols, bits, g)
        rows[:7] = (1 << bits) - 1
        packed = misaligned(ops.pack(rows, bits), cols % 5)
        with ops.force_isa(COMPILED[0]):
            expected = flat.spmm(indptr, indices, packed, bits, cols)
        for sizes in ((4, 50), (64, 299), (1, 300), (17, 1)) if cols == 100 else ((16, 77),):
            blocks = ops.edge_blocks(indptr, indices, 300, sizes)
            for isa in COMPILED:
                with ops.force_isa(isa):
                    out = flat.spmm(indptr, indices, packed, bits, cols, blocks)
                assert same(out, expected), (isa, cols, sizes)


def test_edge_blocks_are_made_where_they_pay() -> None:
    assert ops.edge_block_sizes(100_000, 1000, 10**8, 64) is None  # the table fits any cache
    assert ops.edge_block_sizes(10**6, 10**6, 10**6, 64) is None  # one edge per row
    # The plan follows the cache of the core; these edges suffice for every size of it.
    sizes = ops.edge_block_sizes(10**6, 10**6, 10**10, 64)
    assert sizes is not None and 0 < sizes[1] <= 1 << 16
    with ops.force_isa("reference"):
        assert ops.edge_block_sizes(10**6, 10**6, 10**10, 64) is None


def test_a_group_reads_the_rows_of_a_block_several_times() -> None:
    """Reddit's sizes. Where a row is read twice each time it comes in, blocks are no gain."""
    rows, edges = 232_965, 114_615_892
    sizes = ops.edge_block_sizes(rows, rows, edges, 32)
    assert sizes is not None
    assert sizes[0] * edges / rows >= 4 * rows


def test_edge_blocks_of_another_graph_are_refused() -> None:
    g = generator()
    indptr, indices = graph([3, 4], 9, g)
    packed = ops.pack(codes(9, 16, 4, g), 4)
    blocks = ops.edge_blocks(indptr, indices, 9, (2, 4))
    for isa in COMPILED:
        with ops.force_isa(isa):
            for wrong in (blocks[:-1], blocks[:3], torch.zeros_like(blocks)):
                with pytest.raises(ValueError, match="blocks"):
                    flat.spmm(indptr, indices, packed, 4, 16, wrong)
            with pytest.raises(ValueError, match="multiple of 8"):
                flat.spmm(indptr, indices, packed, 4, 16, misaligned(blocks, 1))
            with pytest.raises(ValueError, match="other sizes"):
                flat.spmm(indptr, indices, torch.cat([packed, packed]), 4, 16, blocks)
            with pytest.raises(ValueError, match="another graph"):
                flat.spmm(indptr, indices.flip(0), packed, 4, 16, blocks)
            # Equal blocks are the graph's, wherever they come from.
            expected = flat.spmm(indptr, indices, packed, 4, 16)
            assert same(flat.spmm(indptr, indices, packed, 4, 16, blocks.clone()), expected)
    with pytest.raises(ValueError, match="block_rows"):
        ops.edge_blocks(indptr, indices, 9, (2, 70_000))


@pytest.mark.slow
def test_table_of_more_than_two_gigabytes() -> None:
    # Row numbers times row bytes pass 2^31, and 2^32; pages that are never written take no memory.
    rows, cols = 35_000_000, 128
    packed = torch.zeros(rows, cols, dtype=torch.uint8)
    wanted = [0, 1, 2**31 // cols - 1, 2**31 // cols, 2**32 // cols, rows - 1]
    for value, row in enumerate(wanted):
        packed[row] = value + 1
    indptr = torch.tensor([0, *range(1, 7), 12])
    indices = torch.tensor([*wanted, *wanted], dtype=torch.int32)
    weight = torch.full((12, 1), 3, dtype=torch.uint8)
    one = torch.tensor([1, 2, 3, 4, 5, 6, 21], dtype=torch.int32).view(-1, 1)
    for isa in COMPILED:
        with ops.force_isa(isa):
            assert flat.spmm(indptr, indices, packed, 8, cols).eq(one).all()
            assert flat.spmm_weighted(indptr, indices, packed, 8, cols, weight).eq(3 * one).all()
            blocks = ops.edge_blocks(indptr, indices, rows, (2, 60_000))
            assert flat.spmm(indptr, indices, packed, 8, cols, blocks).eq(one).all()


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_million_neighbours(bits: int) -> None:
    g = generator(bits)
    degrees = [3, 1_000_000, 0, 40]
    indptr, indices = graph(degrees, 50, g)
    packed = ops.pack(torch.full((50, 20), (1 << bits) - 1, dtype=torch.uint8), bits)
    expected = torch.tensor(degrees, dtype=torch.int32).view(-1, 1) * ((1 << bits) - 1)
    blocks = ops.edge_blocks(indptr, indices, 50, (3, 7))
    before = torch.get_num_threads()
    try:
        for isa in COMPILED:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                with ops.force_isa(isa):
                    for given in (None, blocks):
                        out = flat.spmm(indptr, indices, packed, bits, 20, given)
                        assert out.eq(expected).all(), (isa, threads)
    finally:
        torch.set_num_threads(before)


def test_indices_outside_of_the_table_are_refused() -> None:
    """Also after they were written to, and where nothing counts the writes."""
    g = generator()
    indptr, indices = graph([3, 4], 9, g)
    packed = ops.pack(codes(9, 16, 4, g), 4)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for bad in (9, -1, 2**31 - 1, -(2**31)):
                changed = indices.clone()
                flat.spmm(indptr, changed, packed, 4, 16)
                changed[5] = bad
                with pytest.raises(NodeIndexError, match=rf"indices\[5\] is {bad}"):
                    flat.spmm(indptr, changed, packed, 4, 16)
                with torch.inference_mode():
                    uncounted = indices.clone()
                    flat.spmm(indptr, uncounted, packed, 4, 16)
                    uncounted[5] = bad
                    with pytest.raises(NodeIndexError, match=rf"indices\[5\] is {bad}"):
                        flat.spmm(indptr, uncounted, packed, 4, 16)
