"""Extremes and statistics of neighbours on the kernels in Triton's language."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import assert_kernels_agree, epilogue, needs_triton, outputs
from operator_inputs import codes, generator, graph, misaligned
from torch import Tensor

from nodebits import ops
from nodebits.ops import Edges, Epilogue, Sink, Source, Statistic

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

DEGREES = [0, 1, 17, 0, 40, 3]
EVERY = [*map(int, Statistic)]
every_width = pytest.mark.parametrize("bits", range(1, 9))
either = pytest.mark.parametrize("smallest", (False, True))


def made(bits: int, cols: int, degrees: list[int]) -> tuple[Edges, Source]:
    g = generator(bits * 1000 + cols)
    packed = misaligned(ops.pack(codes(23, cols, bits, g), bits))
    return Edges(*graph(degrees, 23, g)), Source(packed, bits, cols)


def affine(cols: int, bits: int) -> tuple[Tensor, Tensor]:
    g = generator(bits)
    return torch.rand(cols, generator=g) / 10 + 0.01, torch.rand(cols, generator=g) * 3


@every_width
@either
def test_extremes(bits: int, smallest: bool) -> None:
    g = generator(bits)
    for cols in (33, 257):
        edges, source = made(bits, cols, DEGREES)
        scaled = epilogue(len(DEGREES), cols, 1, g)
        for sink in (Sink(), Sink(True, outputs(len(DEGREES), cols, g)[:2])):
            assert_kernels_agree(ops.fused_extremum, edges, source, smallest, scaled, sink)


@every_width
def test_statistics(bits: int) -> None:
    for cols in (33, 257):
        edges, source = made(bits, cols, DEGREES)
        moved = torch.randn(len(DEGREES), cols, generator=generator())
        for kinds, more in ((EVERY, None), (EVERY, moved), ([5, 0, 5], moved), ([3], None)):
            given = kinds, *affine(cols, bits), more
            assert_kernels_agree(ops.neighbor_statistics, edges, source, *given)


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("bits", (1, 3, 8))
def test_long_rows_in_parts(bits: int) -> None:
    g = generator(bits)
    for degrees in (DEGREES, [7, 7], [8, 15]):
        edges, source = made(bits, 40, degrees)
        moved = torch.randn(len(degrees), 40, generator=g)
        given = EVERY, *affine(40, bits), moved
        assert_kernels_agree(ops.neighbor_statistics, edges, source, *given)
        for smallest in (False, True):
            scaled, sink = (
                epilogue(len(degrees), 40, 2, g),
                Sink(True, outputs(len(degrees), 40, g)),
            )
            assert_kernels_agree(ops.fused_extremum, edges, source, smallest, scaled, sink)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 70),
    st.lists(st.integers(0, 20), max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_any_shape(bits: int, cols: int, degrees: list[int], kinds: list[int]) -> None:
    edges, source = made(bits, cols, degrees)
    assert_kernels_agree(ops.neighbor_statistics, edges, source, kinds, *affine(cols, bits), None)
    one = Epilogue(torch.ones(cols))
    assert_kernels_agree(ops.fused_extremum, edges, source, True, one, Sink())


def test_equal_codes_have_no_deviation() -> None:
    """And the smallest variance that has one is that of the definition."""
    edges = Edges(torch.tensor([0, 2]), torch.arange(2, dtype=torch.int32))
    source = Source(ops.pack(torch.tensor([[9, 8], [9, 9]], dtype=torch.uint8), 8), 8, 2)
    step = torch.tensor([1e-5]).sqrt() * 2
    for scale in (step, torch.nextafter(step, torch.ones(1)), step * 0.99, step * 1.01):
        found = assert_kernels_agree(
            ops.neighbor_statistics, edges, source, [4, 5], scale, torch.zeros(1), None
        )
        assert not found[0, 2]
