"""The epilogue of training on the kernels in Triton's language."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import DEVICE, assert_kernels_agree, epilogue, needs_triton, on_kernels, serving
from operator_inputs import generator

from nodebits import ops
from nodebits.engine.epilogue import rescale
from nodebits.ops import Epilogue

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]


def variants(rows: int, cols: int, heads: int, g: torch.Generator) -> list[Epilogue]:
    """With and without each of what may be left out."""
    full = epilogue(rows, cols, heads, g)
    left_out = product((False, True), repeat=4)
    return [
        Epilogue(full[0], *(None if gone else t for gone, t in zip(some, full[1:], strict=True)))
        for some in left_out
    ]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 300), st.integers(0, 70), st.sampled_from((1, 2, 5)), st.integers(0, 15))
def test_values_and_gradients(rows: int, per_head: int, heads: int, which: int) -> None:
    """Rows of a part of a program's, and of several programs."""
    g = generator(rows * 70 + per_head)
    cols = per_head * heads
    acc, grad = (torch.randn(rows, cols, generator=g) for _ in range(2))
    scaled = variants(rows, cols, heads if cols else 1, g)[which]
    assert_kernels_agree(ops.rescale_floats, acc, scaled)
    assert_kernels_agree(ops.rescale_backward, grad, acc, scaled)


def test_values_that_are_not_finite() -> None:
    odd = (math.nan, math.inf, -math.inf, -0.0, 1e-45, 3e38, -3e38, 1.0)
    acc = torch.tensor(odd).view(-1, 1).expand(8, 8).contiguous()
    for scaled in variants(8, 8, 2, generator()):
        assert_kernels_agree(ops.rescale_floats, acc, scaled)
        assert_kernels_agree(ops.rescale_backward, acc.t(), acc, scaled)


def test_sums_are_exact_where_those_of_floats_are_not() -> None:
    """They are added in float64, whatever a program's share of the rows is."""
    grad = torch.ones(1001, 3)
    grad[0] = 2.0**30
    plain = Epilogue(torch.ones(3))
    flat = ops.rescale_backward.flat((grad.to(DEVICE), torch.ones(1001, 3).to(DEVICE), plain))
    flat[2] = flat[2].to(DEVICE)
    found = on_kernels(ops.rescale_backward, *flat)
    exact = float(torch.tensor(2.0**30 + 1000, dtype=torch.float64).float())
    assert found[1].tolist() == found[3].tolist() == [exact] * 3


def test_a_step_of_training_meets_them() -> None:
    g = generator()
    acc, by_column, by_row = (torch.randn(shape, generator=g) for shape in ((40, 6), (6,), (40, 2)))
    here = acc.clone().requires_grad_()
    Epilogue(by_column, row_scale=by_row).apply(here).square().sum().backward()
    there = acc.to(DEVICE, copy=True).requires_grad_()
    with serving():
        made = rescale(there, by_column.to(DEVICE), None, None, by_row.to(DEVICE), None)
        made.square().sum().backward()
    assert made.grad_fn is not None and made.grad_fn.name() == "RescaleBackward"
    assert here.grad is not None and there.grad is not None
    assert torch.equal(there.grad.cpu(), here.grad)
