"""Operators on rows of several widths: every level equals the definition, bucket by bucket."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import assert_all_levels_agree, codes, generator

from nodebits import ops
from nodebits.core.bucketed import RowLayout
from nodebits.core.errors import ShapeError

SHAPES = (st.integers(0, 300), st.integers(0, 90), st.integers(0, 70))


def layout(rows: int, g: torch.Generator, most: int = 8) -> RowLayout:
    return RowLayout.of(torch.randint(1, most + 1, (rows,), generator=g))


@settings(max_examples=30, deadline=None)
@given(*SHAPES[:2], st.sampled_from((-1, 0, 1)), st.booleans())
def test_quantize_and_unpack(rows: int, cols: int, axis: int, factor: bool) -> None:
    g = generator(rows * 91 + cols)
    where = layout(rows, g)
    x = 3 * torch.randn(rows, cols, generator=g)
    scale = torch.rand({-1: 1, 0: rows, 1: cols}[axis], generator=g) + 0.05
    zero = torch.rand(rows if axis == 0 else 8, generator=g) * 3
    by = torch.rand(rows, generator=g) if factor else None
    packed = assert_all_levels_agree(
        ops.quantize_pack_bucketed, x, scale, zero, axis, where.order, where.counts, by
    )
    found = assert_all_levels_agree(ops.unpack_bucketed, packed, where.order, where.counts, cols)
    for node in range(rows):
        bits = int(where.widths[node])
        one = ops.quantize_pack(
            x[node : node + 1],
            scale[node : node + 1] if axis == 0 else scale,
            zero[node : node + 1] if axis == 0 else zero[bits - 1 : bits].expand(scale.numel()),
            axis,
            bits,
            None if by is None else by[node : node + 1],
        )
        assert torch.equal(found[node : node + 1], ops.unpack(one, bits, cols))


@settings(max_examples=30, deadline=None)
@given(*SHAPES, st.integers(1, 8), st.booleans())
def test_gemm(rows: int, depth: int, out: int, w_bits: int, midrise: bool) -> None:
    midrise = midrise and w_bits < 8
    g = generator(rows * 31 + depth)
    where = layout(rows, g)
    limit = (1 << where.widths.int()).view(-1, 1)
    x = (torch.randint(0, 256, (rows, depth), generator=g) % limit).to(torch.uint8)
    packed = ops.quantize_pack_bucketed(
        x.float(), torch.ones(1), torch.zeros(8), -1, where.order, where.counts
    )
    w = ops.pack(codes(out, depth, w_bits, g), w_bits)
    found = assert_all_levels_agree(
        ops.gemm_bucketed, packed, where.order, where.counts, depth, w, w_bits, midrise
    )
    # In node order, what the operator for one width gives on the same codes.
    assert torch.equal(found, ops.gemm(x, 8, depth, w, w_bits, midrise))


def test_deep_rows_and_many_blocks() -> None:
    g = generator(5)
    where = layout(1000, g, most=3)
    x = (torch.randint(0, 8, (1000, 1433), generator=g) % (1 << where.widths.int()).view(-1, 1)).to(
        torch.uint8
    )
    packed = ops.quantize_pack_bucketed(
        x.float(), torch.ones(1), torch.zeros(8), -1, where.order, where.counts
    )
    assert packed.numel() == where.bytes(1433)
    w = ops.pack(codes(70, 1433, 4, g), 4)
    found = assert_all_levels_agree(
        ops.gemm_bucketed, packed, where.order, where.counts, 1433, w, 4
    )
    assert torch.equal(found, ops.gemm(x, 8, 1433, w, 4))


def test_shift() -> None:
    g = generator(1)
    where = layout(40, g, most=4)
    x = torch.rand(40, 9, generator=g) * 20
    packed = ops.quantize_pack_bucketed(
        x, torch.ones(1), torch.zeros(8), -1, where.order, where.counts
    )
    shift = torch.randint(0, 5, (40,), generator=g, dtype=torch.uint8)
    plain = ops.unpack_bucketed(packed, where.order, where.counts, 9)
    found = assert_all_levels_agree(
        ops.unpack_bucketed, packed, where.order, where.counts, 9, shift
    )
    assert torch.equal(found, plain << shift.view(-1, 1))


def test_bad_input_is_refused() -> None:
    where = RowLayout.of(torch.tensor([1, 2, 8]))
    x, one, zeros = torch.zeros(3, 4), torch.ones(1), torch.zeros(8)
    with pytest.raises(ShapeError, match="counts"):
        ops.quantize_pack_bucketed(x, one, zeros, -1, where.order, (1, 1, 1))
    with pytest.raises(ShapeError, match="3 rows for 2"):
        ops.quantize_pack_bucketed(x[:2], one, zeros, -1, where.order, where.counts)
    with pytest.raises(ShapeError, match="expected 8"):
        ops.quantize_pack_bucketed(x, one, one, -1, where.order, where.counts)
    packed = ops.quantize_pack_bucketed(x, one, zeros, -1, where.order, where.counts)
    with pytest.raises(ShapeError, match="bytes"):
        ops.gemm_bucketed(packed, where.order, where.counts, 40, packed.view(1, -1), 8)
    with pytest.raises(ShapeError, match="shift"):
        ops.unpack_bucketed(packed, where.order, where.counts, 4, torch.zeros(2).byte())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 10, width=32), max_size=50),
    st.lists(st.floats(0, 10, width=32), min_size=1, max_size=20),
)
def test_nearest_group(extents: list[float], limits: list[float]) -> None:
    f, q = torch.tensor(extents), torch.tensor(sorted(limits))
    found = assert_all_levels_agree(ops.nearest_group, f, q)
    for value, at in zip(f, found.long(), strict=True):
        assert (q[at] - value).abs() == (q - value).abs().min()


def test_nearest_group_of_two_as_near_is_the_smaller() -> None:
    assert ops.nearest_group(torch.tensor([2.0, 9.0, 0.0]), torch.tensor([1.0, 3.0])).tolist() == [
        0,
        1,
        0,
    ]
    with pytest.raises(ShapeError, match="at least one"):
        ops.nearest_group(torch.ones(1), torch.ones(0))
