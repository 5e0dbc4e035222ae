"""Attention codes on the kernels in Triton's language."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import assert_kernels_agree, needs_triton
from operator_inputs import generator, graph

from nodebits import ops

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

DEGREES = [0, 1, 17, 0, 40, 300]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("heads", (1, 3, 20))
def test_every_width(bits: int, heads: int) -> None:
    g = generator(bits)
    indptr, indices = graph(DEGREES, 23, g)
    src, dst = torch.randn(23, heads, generator=g), torch.randn(len(DEGREES), heads, generator=g)
    for spread, slope in ((1.0, 0.2), (40.0, -1.5)):
        given = spread * src, spread * dst, slope
        codes, row_sum = assert_kernels_agree(ops.edge_softmax, indptr, indices, *given, bits)
        assert int(codes.max()) == (1 << bits) - 1 and int(row_sum[0, 0]) == 0


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=12, max_size=12),
    st.lists(st.floats(width=32), min_size=3, max_size=3),
    st.integers(1, 8),
)
def test_any_scores(source: list[float], target: list[float], bits: int) -> None:
    indptr, indices = graph([5, 0, 4], 12, generator())
    src, dst = torch.tensor(source).view(-1, 1), torch.tensor(target).view(-1, 1)
    assert_kernels_agree(ops.edge_softmax, indptr, indices, src, dst, 0.2, bits)


def test_scores_without_a_finite_largest() -> None:
    indptr, indices = torch.tensor([0, 2, 4, 6]), torch.arange(6, dtype=torch.int32)
    src = torch.tensor([math.inf, 1.0, -math.inf, -math.inf, math.nan, 2.0]).view(-1, 1)
    found = assert_kernels_agree(ops.edge_softmax, indptr, indices, src, torch.zeros(3, 1), 0.2, 8)
    assert found[1].view(-1).tolist() == [0, 0, 255]


def test_every_exponent() -> None:
    """The polynomial on a fine grid of differences, through codes of eight bits."""
    count = 4000
    src = torch.cat([torch.zeros(1), torch.linspace(-90, 0, count)]).view(-1, 1)
    indptr = torch.tensor([0, count + 1])
    indices = torch.arange(count + 1, dtype=torch.int32)
    assert_kernels_agree(ops.edge_softmax, indptr, indices, src, torch.zeros(1, 1), 1.0, 8)
