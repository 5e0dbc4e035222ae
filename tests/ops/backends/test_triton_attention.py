"""Attention between all rows of a graph on the kernels in Triton's language."""

from __future__ import annotations

import math

import pytest
import torch
from on_triton import assert_kernels_agree, needs_triton
from operator_inputs import generator

from nodebits import ops

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]


@pytest.mark.parametrize("heads, width", ((1, 1), (3, 5), (2, 8), (1, 70)))
def test_graphs_of_any_size(heads: int, width: int) -> None:
    """Graphs within, at and over the ends of the tiles of rows and of keys."""
    sizes = [1, 3, 12, 16, 17]
    batch = torch.repeat_interleave(torch.tensor([0, 1, 4, 5, 9]), torch.tensor(sizes))
    g = generator(width)
    rows = [torch.randn(49, heads * width, generator=g) for _ in range(3)]
    assert_kernels_agree(ops.graph_attention, *rows, batch, heads)
    assert_kernels_agree(ops.graph_attention, *rows, None, heads)


def test_scores_of_any_size() -> None:
    x = torch.randn(19, 4, generator=generator())
    odd = x.clone()
    odd[3, 1], odd[5, 0], odd[7, 2], odd[9] = math.nan, math.inf, -math.inf, 3e38
    for given in (x * 1e4, x * 1e-30, odd):
        assert_kernels_agree(ops.graph_attention, given, given, x, None, 2)
        assert_kernels_agree(ops.graph_attention, x, x, given, torch.arange(19) // 7, 2)
    nothing = torch.full((19, 4), math.nan)
    assert_kernels_agree(ops.graph_attention, nothing, nothing, x, None, 2)


def test_no_rows_and_no_columns() -> None:
    for shape in ((0, 4), (3, 0), (0, 0)):
        rows = torch.zeros(shape)
        assert_kernels_agree(ops.graph_attention, rows, rows, rows, None, 2)
