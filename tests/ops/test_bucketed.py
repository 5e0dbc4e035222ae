"""Operators on rows of several widths: every level equals the definition, bucket by bucket."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import assert_all_levels_agree, codes, generator, graph
from torch import Tensor

import flat
from nodebits import ops
from nodebits.core.errors import ShapeError
from nodebits.core.row_layout import RowLayout
from nodebits.ops.features import pack_checked

SHAPES = (st.integers(0, 300), st.integers(0, 90), st.integers(0, 70))


def layout(rows: int, g: torch.Generator, most: int = 8) -> RowLayout:
    return RowLayout.of(torch.randint(1, most + 1, (rows,), generator=g))


def pack_codes(x: Tensor, where: RowLayout) -> Tensor:
    """Rows of codes in buckets."""
    return ops.quantize_pack_bucketed(
        x.float(), torch.ones(1), torch.zeros(8), -1, where.widths, where.position
    )


def codes_of(where: RowLayout, cols: int, g: torch.Generator) -> Tensor:
    """Random codes, uint8, each row within its width."""
    limit = (1 << where.widths.int()).view(-1, 1)
    return (torch.randint(0, 256, (where.num_rows, cols), generator=g) % limit).to(torch.uint8)


@settings(max_examples=30, deadline=None)
@given(*SHAPES[:2], st.sampled_from((-1, 0, 1)), st.booleans())
def test_quantize_and_unpack(rows: int, cols: int, axis: int, factor: bool) -> None:
    g = generator(rows * 91 + cols)
    where = layout(rows, g)
    x = 3 * torch.randn(rows, cols, generator=g)
    scale = torch.rand({-1: 1, 0: rows, 1: cols}[axis], generator=g) + 0.05
    zero = torch.rand(8, generator=g) * 3
    by = torch.rand(rows, generator=g) if factor else None
    packed = assert_all_levels_agree(
        ops.quantize_pack_bucketed, x, scale, zero, axis, where.widths, where.position, by
    )
    found = assert_all_levels_agree(flat.unpack_bucketed, packed, where.order, where.counts, cols)
    for node in range(rows):
        bits = int(where.widths[node])
        one = ops.quantize_pack(
            x[node : node + 1],
            scale[node : node + 1] if axis == 0 else scale,
            zero[bits - 1 : bits].expand(1 if axis == 0 else scale.numel()),
            axis,
            bits,
            None if by is None else by[node : node + 1],
        )
        assert torch.equal(found[node : node + 1], ops.unpack(one, bits, cols))


def test_wide_rows_and_a_search_for_values_that_are_not_finite() -> None:
    g = generator(3)
    where = layout(70, g)
    x = torch.randn(70, 1100, generator=g)
    scale, zero = torch.rand(70, generator=g) + 0.1, torch.rand(8, generator=g)
    for row, value in ((None, 0.0), (0, math.nan), (69, math.inf), (33, -math.inf)):
        y = x.clone()
        if row is not None:
            y[row, 1099] = value
        assert_all_levels_agree(
            ops.quantize_pack_bucketed, y, scale, zero, 0, where.widths, where.position
        )
        for isa in ops.available_isas():
            with ops.force_isa(isa):
                packed = pack_checked(y, scale, zero, where)
            assert (packed is None) == (row is not None)


def finished(y: Tensor, q: dict[str, Any]) -> list[Tensor]:
    """Rows of several widths, in plain operators: in buckets, then as shifted bytes."""
    where, shift = q["layout"], q["shift"]
    bucketed = ops.quantize_pack_bucketed(
        y, q["row_scale"], q["zero"], 0, where.widths, where.position, q["factor"]
    )
    by = torch.exp2(-shift.float()) * q["factor"]
    aligned = ops.quantize_pack_bucketed(
        y, q["scale"], q["zero"], 1 if q["scale"].numel() > 1 else -1, where.widths,
        where.position, by,
    )  # fmt: skip
    aligned = flat.unpack_bucketed(aligned, where.order, where.counts, y.size(1), shift)
    return [bucketed, aligned]


def mixed_quantizers(rows: int, cols: int, g: torch.Generator) -> dict[str, Any]:
    where = layout(rows, g)
    return {
        "layout": where,
        "row_scale": torch.rand(rows, generator=g) + 0.05,
        "scale": torch.rand(cols if cols % 2 else 1, generator=g) + 0.05,
        "zero": torch.rand(8, generator=g) * 3,
        "factor": torch.rand(rows, generator=g),
        "shift": ((8 - where.widths) * torch.randint(0, 2, (rows,), generator=g)).to(torch.uint8),
    }


def as_arguments(q: dict[str, Any]) -> tuple[Any, ...]:
    """Both quantizers as a fused operator takes them."""
    where = q["layout"]
    return (
        [q["row_scale"], q["scale"]],
        [q["zero"]] * 2,
        [8, 8],
        [q["factor"]] * 2,
        [where.widths] * 2,
        [where.position, None],
        [None, q["shift"]],
    )


@settings(max_examples=40, deadline=None)
@given(*SHAPES, st.integers(1, 8), st.booleans(), st.booleans())
def test_product_of_rows_of_several_widths(
    rows: int, depth: int, out: int, w_bits: int, midrise: bool, plain: bool
) -> None:
    midrise = midrise and w_bits < 8
    g = generator(rows * 31 + depth)
    where = layout(rows, g)
    x = codes_of(where, depth, g)
    w = ops.pack(codes(out, depth, w_bits, g), w_bits)
    col, row = torch.randn(out, generator=g), torch.rand(rows, 1, generator=g)
    epilogue = (col, None, None, None, None) if plain else (col, col, row, row, col)
    product = (pack_codes(x, where), where.order, where.counts, depth, w, w_bits, midrise)
    floats = assert_all_levels_agree(
        flat.fused_gemm_bucketed, *product, *epilogue, plain, *[[]] * 4
    )
    # In node order, what the operators for one width give on the same codes.
    y = flat.rescale(flat.gemm(x, 8, depth, w, w_bits, midrise), *epilogue)
    y = torch.relu(y) if plain else y
    assert torch.equal(floats[0], y)
    q = mixed_quantizers(rows, out, g)
    made = assert_all_levels_agree(
        flat.fused_gemm_bucketed, *product, *epilogue, plain, *as_arguments(q)
    )
    for a, b in zip(made, finished(y, q), strict=True):
        assert torch.equal(a, b)


def test_deep_rows_and_many_blocks() -> None:
    g = generator(5)
    where = layout(1000, g, most=3)
    x = codes_of(where, 1433, g)
    packed = pack_codes(x, where)
    assert packed.numel() == where.bytes(1433)
    w, one = ops.pack(codes(70, 1433, 4, g), 4), torch.ones(70)
    found = assert_all_levels_agree(
        flat.fused_gemm_bucketed, packed, where.order, where.counts, 1433, w, 4, False, one,
        *[None] * 4, False, *[[]] * 4,
    )  # fmt: skip
    assert torch.equal(found[0], flat.gemm(x, 8, 1433, w, 4).float())


@pytest.mark.parametrize("bits", range(1, 9))
def test_sum_to_rows_of_several_widths(bits: int) -> None:
    degrees = [0, 1, 2, 17, 0, 86, 258, 3, 300, 5, 0, 40]
    for cols in (1, 8, 17, 64, 129, 700):
        g = generator(cols + bits)
        indptr, indices = graph(degrees, 19, g)
        sums = (indptr, indices, ops.pack(codes(19, cols, bits, g), bits), bits, cols)
        scale = torch.randn(cols, generator=g) * 0.1
        q = mixed_quantizers(len(degrees), cols, g)
        made = assert_all_levels_agree(
            flat.fused_spmm, *sums, *[None] * 4, scale, *[None] * 6, True, *as_arguments(q)
        )
        y = torch.relu(flat.rescale(flat.spmm(*sums), scale))
        for a, b in zip(made, finished(y, q), strict=True):
            assert torch.equal(a, b)


def test_shift() -> None:
    g = generator(1)
    where = layout(40, g, most=4)
    packed = pack_codes(codes_of(where, 9, g), where)
    shift = torch.randint(0, 5, (40,), generator=g, dtype=torch.uint8)
    plain = flat.unpack_bucketed(packed, where.order, where.counts, 9)
    found = assert_all_levels_agree(
        flat.unpack_bucketed, packed, where.order, where.counts, 9, shift
    )
    assert torch.equal(found, plain << shift.view(-1, 1))


@pytest.mark.parametrize("isa", ops.available_isas())
def test_bad_input_is_refused(isa: str) -> None:
    where = RowLayout.of(torch.tensor([1, 2, 8]))
    x, one, zeros = torch.zeros(3, 4), torch.ones(1), torch.zeros(8)
    places = where.widths, where.position
    with ops.force_isa(isa):
        with pytest.raises(ShapeError, match="widths has 2 values for 3 rows"):
            ops.quantize_pack_bucketed(x, one, zeros, -1, where.widths[:2], where.position)
        with pytest.raises(ShapeError, match="position has 3 values for 2 rows"):
            ops.quantize_pack_bucketed(x[:2], one, zeros, -1, where.widths[:2], where.position)
        with pytest.raises(ShapeError, match="expected 8"):
            ops.quantize_pack_bucketed(x, one, one, -1, *places)
        packed = ops.quantize_pack_bucketed(x, one, zeros, -1, *places)
        with pytest.raises(ShapeError, match="shift"):
            flat.unpack_bucketed(packed, where.order, where.counts, 4, torch.zeros(2).byte())

        def product(q: tuple[Any, ...], counts: Any = where.counts, cols: int = 4) -> None:
            w = torch.zeros(5, cols, dtype=torch.uint8)
            flat.fused_gemm_bucketed(
                packed, where.order, counts, cols, w, 8, False, torch.ones(5), *[None] * 4, False,
                *q,
            )  # fmt: skip

        with pytest.raises(ShapeError, match="counts"):
            product(([],) * 4, (1, 1, 1))
        with pytest.raises(ShapeError, match="bytes"):
            product(([],) * 4, cols=40)
        q = list(as_arguments(mixed_quantizers(3, 5, generator())))
        with pytest.raises(ShapeError, match="either a position or a shift"):
            product((*q[:5], [None] * 2, q[6]))
        with pytest.raises(ShapeError, match="zero_point of a result"):
            product((q[0], [one, one], *q[2:]))
        with pytest.raises(ShapeError, match="scale of a result"):
            product(([one, one], *q[1:]))


def test_widths_places_and_shifts_are_checked_before_memory_is_written() -> None:
    """The compiled operators trust nothing that says where a row goes."""
    x, one, zeros = torch.zeros(3, 4), torch.ones(1), torch.zeros(8)
    good = torch.tensor([1, 2, 2], dtype=torch.uint8)
    place = torch.tensor([0, 0, 1], dtype=torch.int32)
    for widths, position in (
        (torch.tensor([0, 2, 2], dtype=torch.uint8), place),
        (torch.tensor([1, 2, 9], dtype=torch.uint8), place),
        (good, torch.tensor([0, 0, 2], dtype=torch.int32)),
        (good, torch.tensor([-1, 0, 1], dtype=torch.int32)),
    ):
        with pytest.raises((ValueError, IndexError), match=r"(widths|position)\[\d\] is"):
            ops.quantize_pack_bucketed(x, one, zeros, -1, widths, position)
    packed = ops.quantize_pack_bucketed(x, one, zeros, -1, good, place)
    order, counts = torch.tensor([0, 1, 2], dtype=torch.int32), (1, 2, 0, 0, 0, 0, 0, 0)
    w = torch.zeros(5, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"width \+ shift"):
        flat.fused_gemm_bucketed(
            packed, order, counts, 4, w, 8, False, torch.ones(5), *[None] * 4, False, [one],
            [zeros], [8], [None], [good], [None], [torch.full((3,), 7, dtype=torch.uint8)],
        )  # fmt: skip


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
