"""Products on the kernels in Triton's language: all widths, any shape, all that is fused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import assert_kernels_agree, epilogue, needs_triton, outputs
from operator_inputs import codes, generator, misaligned

from nodebits import ops
from nodebits.core.row_layout import RowLayout
from nodebits.ops import Epilogue, Mixed, Product, Sink, Source, Weight

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]


def source_of(rows: int, depth: int, bits: int, g: torch.Generator) -> Source:
    return Source(misaligned(ops.pack(codes(rows, depth, bits, g), bits)), bits, depth)


def weight_of(cols: int, depth: int, bits: int, g: torch.Generator) -> Weight:
    packed = misaligned(ops.pack(codes(cols, depth, bits, g), bits), 3)
    return Weight(packed, bits, bits < 8 and cols % 2 == 1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_pair_of_widths(bits: int) -> None:
    g = generator(bits)
    for w_bits in range(1, 9):
        weight = weight_of(21 if w_bits % 2 else 16, 70, w_bits, g)
        assert_kernels_agree(ops.gemm, source_of(18, 70, bits, g), weight)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(0, 80), st.integers(0, 140),
    st.integers(0, 80),
)  # fmt: skip
def test_any_shape(bits: int, w_bits: int, rows: int, depth: int, cols: int) -> None:
    g = generator(rows * 1000 + depth)
    source, weight = source_of(rows, depth, bits, g), weight_of(cols, depth, w_bits, g)
    assert_kernels_agree(ops.gemm, source, weight)


@pytest.mark.parametrize("field", (0x80, 0x7F))
def test_extremes_do_not_saturate(field: int) -> None:
    depth = 1024
    x = Source(torch.full((3, depth), 255, dtype=torch.uint8), 8, depth)
    w = Weight(torch.full((5, depth), field, dtype=torch.uint8), 8)
    found = assert_kernels_agree(ops.gemm, x, w)
    assert found.eq(depth * 255 * (-128 if field == 0x80 else 127)).all()


@pytest.mark.parametrize("bits", range(1, 9))
def test_sums_of_products(bits: int) -> None:
    g = generator(bits)
    for rows, depth, cols in ((1, 1, 1), (61, 70, 17)):
        for count in (1, 3):
            products = [
                Product(
                    source_of(rows, depth, bits, g),
                    weight_of(cols, depth, 4, g),
                    epilogue(rows, cols, 1, g) if i else Epilogue(torch.randn(cols, generator=g)),
                )
                for i in range(count)
            ]
            post = torch.randn(cols, generator=g), torch.randn(cols, generator=g)
            for sink in (Sink(), Sink(True, outputs(rows, cols, g), *post)):
                assert_kernels_agree(ops.fused_gemm, products, sink)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 40), st.integers(1, 8), st.booleans())
def test_rows_of_several_widths(rows: int, depth: int, cols: int, w_bits: int, plain: bool) -> None:
    g = generator(rows * 31 + depth)
    where = RowLayout.of(torch.randint(1, 9, (rows,), generator=g))
    x = 3 * torch.randn(rows, depth, generator=g)
    scale, zeros = torch.rand(rows, generator=g) + 0.05, torch.rand(8, generator=g) * 3
    by = None if plain else torch.rand(rows, generator=g)
    places = where.widths, where.position
    packed = assert_kernels_agree(ops.quantize_pack_bucketed, x, scale, zeros, 0, *places, by)
    mixed = Mixed(packed, where.order, list(where.counts), depth)
    shift = None if plain else (8 - where.widths)
    assert_kernels_agree(ops.unpack_bucketed, mixed, shift)
    scaled = epilogue(rows, cols, 1, g)
    weight = weight_of(cols, depth, w_bits, g)
    for sink in (Sink(plain), Sink(True, outputs(rows, cols, g))):
        assert_kernels_agree(ops.fused_gemm_bucketed, mixed, weight, scaled, sink)


@pytest.mark.parametrize("axis", (-1, 1))
def test_buckets_with_other_scales(axis: int) -> None:
    g = generator()
    where = RowLayout.of(torch.randint(1, 9, (30,), generator=g))
    x = torch.randn(30, 19, generator=g)
    scale = torch.rand(1 if axis == -1 else 19, generator=g) + 0.05
    places = where.widths, where.position
    assert_kernels_agree(ops.quantize_pack_bucketed, x, scale, torch.rand(8), axis, *places, None)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 40), st.integers(0, 70), st.sampled_from((1, 2, 5)))
def test_the_epilogue_alone(rows: int, per_head: int, heads: int) -> None:
    g = generator(rows * 70 + per_head)
    cols = per_head * heads
    acc = torch.randint(-(2**31), 2**31 - 1, (rows, cols), generator=g, dtype=torch.int32)
    scaled = epilogue(rows, cols, heads if cols else 1, g)
    assert_kernels_agree(ops.rescale, acc, scaled)
    assert_kernels_agree(ops.rescale, acc, scaled._replace(row_offset=None, bias=None))
    assert_kernels_agree(ops.rescale, acc, Epilogue(scaled.col_scale))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(width=32), max_size=50),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
)
def test_nearest_groups(extents: list[float], limits: list[float]) -> None:
    known = torch.tensor(sorted(limits))
    assert_kernels_agree(ops.nearest_group, torch.tensor(extents), known)
    assert_kernels_agree(ops.nearest_group, known, known)
