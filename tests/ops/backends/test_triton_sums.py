"""Neighbour sums on the kernels in Triton's language: every width, form, degree and way to read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import assert_kernels_agree, epilogue, moved, needs_triton, on_kernels, outputs
from operator_inputs import codes, generator, graph, misaligned, same
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import GraphError
from nodebits.core.registry import CODINGS
from nodebits.ops import Edges, Epilogue, Output, Own, Rounds, Sink, Source, Steps

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

DEGREES = [0, 1, 17, 0, 40, 3]
every_width = pytest.mark.parametrize("bits", range(1, 9))


@every_width
@pytest.mark.parametrize("cols", (1, 9, 32, 65, 257))
def test_unit_weights(bits: int, cols: int) -> None:
    """In words, in bytes where rows begin at odd ones, and in fields of odd widths."""
    g = generator(bits)
    edges = Edges(*graph(DEGREES, 23, g))
    packed = ops.pack(codes(23, cols, bits, g), bits)
    for rows in (packed, misaligned(packed)):
        found = assert_kernels_agree(ops.spmm, edges, Source(rows, bits, cols))
        assert not found[0].any()


@every_width
def test_largest_codes_do_not_wrap_the_lanes_of_a_word(bits: int) -> None:
    degrees = [1, 300, 1111]
    edges = Edges(*graph(degrees, 3, generator()))
    packed = ops.pack(torch.full((3, 64), (1 << bits) - 1, dtype=torch.uint8), bits)
    found = assert_kernels_agree(ops.spmm, edges, Source(packed, bits, 64))
    assert found[:, 0].tolist() == [n * ((1 << bits) - 1) for n in degrees]


@every_width
@pytest.mark.parametrize("heads", (1, 4, 20))
def test_codes_of_edges(bits: int, heads: int) -> None:
    g = generator(bits)
    for cols in (20, 260):
        indptr, indices = graph(DEGREES, 23, g)
        weight = misaligned(codes(indices.numel(), heads, 8, g))
        source = Source(misaligned(ops.pack(codes(23, cols, bits, g), bits)), bits, cols)
        assert_kernels_agree(ops.spmm, Edges(indptr, indices, weight), source)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 140),
    st.lists(st.integers(0, 20), max_size=8),
    st.integers(0, 3),
    st.integers(0, 2**20),
)
def test_any_shape(bits: int, cols: int, degrees: list[int], shift: int, seed: int) -> None:
    g = generator(seed)
    edges = Edges(*graph(degrees, 7, g))
    packed = misaligned(ops.pack(codes(7, cols, bits, g), bits), shift)
    assert_kernels_agree(ops.spmm, edges, Source(packed, bits, cols))


@pytest.mark.parametrize("name", CODINGS.names())
def test_fields_of_other_codings(name: str) -> None:
    coding = CODINGS.get(name)
    bits, g = coding.widths[0], generator()
    plain = ops.pack(codes(8, 40, bits, g).clamp(max=2), bits)
    source = Source(coding.encode(plain, bits, 40), bits, 40, coding.number)
    edges = Edges(*graph(DEGREES, 8, g))
    assert_kernels_agree(ops.spmm, edges, source)
    own = Own(own=source.packed[: len(DEGREES)], own_factor=torch.tensor([1.5]))
    scaled = epilogue(len(DEGREES), 40, 1, g)
    assert_kernels_agree(ops.fused_spmm, edges, source, own, scaled, Sink())


@every_width
@pytest.mark.parametrize("cols", (17, 64))
def test_fused(bits: int, cols: int) -> None:
    g = generator(cols)
    rows = len(DEGREES)
    edges = Edges(*graph(DEGREES, 19, g))
    source = Source(misaligned(ops.pack(codes(19, cols, bits, g), bits)), bits, cols)
    scaled = epilogue(rows, cols, 1, g)
    post = torch.randn(cols, generator=g), torch.randn(cols, generator=g)
    for sink in (Sink(), Sink(True, outputs(rows, cols, g)), Sink(True, [], *post)):
        assert_kernels_agree(ops.fused_spmm, edges, source, Own(), scaled, sink)
    assert_kernels_agree(ops.fused_spmm, edges, source, Own(), Epilogue(scaled.col_scale), Sink())


@every_width
def test_fused_with_own_rows_and_integer_transform(bits: int) -> None:
    g = generator(bits)
    rows, cols = len(DEGREES), 33
    edges = Edges(*graph(DEGREES, 19, g))
    source = Source(ops.pack(codes(19, cols, bits, g), bits), bits, cols)
    transform = (
        torch.randint(-3, 9, (rows,), generator=g, dtype=torch.int32),
        torch.randint(-(2**31), 2**31 - 1, (rows,), generator=g, dtype=torch.int32),
    )
    own = misaligned(ops.pack(codes(rows, cols, bits, g), bits)), torch.tensor([1.3])
    scaled = epilogue(rows, cols, 1, g)
    for taken in (Own(*transform), Own(None, None, *own), Own(*transform, *own)):
        for one in (scaled, scaled._replace(col_offset=None)):
            sink = Sink(False, outputs(rows, cols, g)[:2])
            assert_kernels_agree(ops.fused_spmm, edges, source, taken, one, sink)


@pytest.mark.parametrize("heads", (1, 2, 4))
def test_fused_with_codes_of_edges(heads: int) -> None:
    g = generator(heads)
    rows = len(DEGREES)
    for cols, bits in ((136, 4), (24, 3)):
        indptr, indices = graph(DEGREES, 19, g)
        edges = Edges(indptr, indices, codes(indices.numel(), heads, 8, g))
        source = Source(ops.pack(codes(19, cols, bits, g), bits), bits, cols)
        scaled = epilogue(rows, cols, heads, g)
        sink = Sink(True, outputs(rows, cols, g))
        assert_kernels_agree(ops.fused_spmm, edges, source, Own(), scaled, sink)


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("bits", (1, 3, 4, 8))
def test_long_rows_in_parts(bits: int) -> None:
    """Also where every row is short, or every one long; and with all that is fused."""
    g = generator(bits)
    for degrees in (DEGREES, [7, 7], [8, 15]):
        rows, cols = len(degrees), 40
        indptr, indices = graph(degrees, 19, g)
        source = Source(ops.pack(codes(19, cols, bits, g), bits), bits, cols)
        for weight in (None, codes(indices.numel(), 2, 8, g)):
            edges = Edges(indptr, indices, weight)
            assert_kernels_agree(ops.spmm, edges, source)
            whole = torch.arange(rows, dtype=torch.int32)
            own = Own(whole, whole, ops.pack(codes(rows, cols, bits, g), bits), torch.ones(1))
            sink = Sink(True, outputs(rows, cols, g))
            assert_kernels_agree(
                ops.fused_spmm, edges, source, own, epilogue(rows, cols, 2, g), sink
            )


@pytest.mark.usefixtures("short_parts")
def test_neither_the_order_of_edges_nor_that_of_programs_is_seen() -> None:
    g = generator()
    indptr, indices = graph([500, 3], 50, g)
    source = Source(ops.pack(codes(50, 33, 8, g), 8), 8, 33)
    shuffled = torch.cat([indices[:500][torch.randperm(500, generator=g)], indices[500:]])

    def found(order: Tensor) -> Any:
        return on_kernels(ops.spmm, *ops.spmm.flat(moved((Edges(indptr, order), source))))

    assert same(found(indices), found(shuffled))


def test_nothing_to_sum() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    for rows, cols in ((0, 5), (3, 5), (3, 0), (0, 0)):
        edges = Edges(torch.zeros(rows + 1, dtype=torch.int64), none)
        source = Source(torch.zeros(0, (cols + 1) // 2, dtype=torch.uint8), 4, cols)
        assert_kernels_agree(ops.spmm, edges, source)
        sink = Sink(True, [Output(torch.ones(1), torch.zeros(1), 4)])
        one = Epilogue(torch.ones(cols))
        assert_kernels_agree(ops.fused_spmm, edges, source, Own(), one, sink)


def test_one_row_of_any_stride() -> None:
    """Torch calls it contiguous, whatever the distance to a next row would be."""
    row = torch.arange(8, dtype=torch.uint8).as_strided((1, 8), (9, 1))
    edges = Edges(torch.tensor([0, 2]), torch.zeros(2, dtype=torch.int32))
    assert_kernels_agree(ops.spmm, edges, Source(row, 8, 8))


def test_a_wrong_pointer_is_refused() -> None:
    source = Source(torch.zeros(3, 4, dtype=torch.uint8), 8, 4)
    indices = torch.zeros(2, dtype=torch.int32)
    for indptr in ([0, 1], [1, 2], [0, 3, 2], [0, 5, 1, 2]):
        given = moved((Edges(torch.tensor(indptr), indices), source))
        with pytest.raises(GraphError, match="indptr"):
            on_kernels(ops.spmm, *ops.spmm.flat(given))
    pointer = moved(torch.tensor([0, 1, 2]))
    good = moved((Edges(pointer, indices), source))
    good = (good[0]._replace(indptr=pointer), good[1])
    on_kernels(ops.spmm, *ops.spmm.flat(good))
    pointer[1] = 3  # it was right once
    with pytest.raises(GraphError, match="indptr"):
        on_kernels(ops.spmm, *ops.spmm.flat(good))


@pytest.mark.parametrize("laplacian", (False, True))
@pytest.mark.parametrize("factor", (False, True))
def test_steps(laplacian: bool, factor: bool) -> None:
    g = generator()
    rows, cols, steps = 6, 10, Steps([0.0, 0.5, -0.25], laplacian, 0.1)
    edges = Edges(*graph([2, 0, 3, 1, 9, 4], rows, g))
    x = torch.randn(rows, cols, generator=g)
    each = [torch.rand(5, cols, generator=g) + 0.1 for _ in range(3)]
    rounds = Rounds(*each, [4, 8, 2, 3, 1])
    by = torch.rand(rows, generator=g) if factor else None
    assert_kernels_agree(ops.propagate, edges, x, by, rounds, steps)
