"""Rows of one width on the kernels in Triton's language: every width, granularity and shape."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_triton import assert_kernels_agree, needs_triton
from operator_inputs import codes, generator, misaligned
from torch import Tensor

from nodebits import ops
from nodebits.core.registry import CODINGS
from nodebits.ops import Source

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

AXES = (-1, 0, 1)
SHAPES = (st.integers(0, 40), st.integers(0, 70))
every_width = pytest.mark.parametrize("bits", range(1, 9))


def affine(x: Tensor, axis: int, bits: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scales and zero points, offset for signed values or real."""
    length = 1 if axis == -1 else x.size(axis)
    scale = torch.rand(length, generator=g) + 0.01
    zero = torch.full((length,), float(1 << (bits - 1)))
    return scale, zero if length % 2 else zero + torch.rand(length, generator=g)


@every_width
@pytest.mark.parametrize("cols", (1, 7, 8, 64, 257))
def test_packing_and_back(bits: int, cols: int) -> None:
    g = generator(bits)
    u = codes(5, cols, 8, g)  # also bits above the lowest
    packed = assert_kernels_agree(ops.pack, misaligned(u), bits)
    found = assert_kernels_agree(ops.unpack, misaligned(packed, 3), bits, cols)
    assert torch.equal(found, u & ((1 << bits) - 1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), *SHAPES, st.sampled_from(AXES), st.booleans())
def test_quantizing(bits: int, rows: int, cols: int, axis: int, factor: bool) -> None:
    g = generator(rows * 71 + cols)
    x = 3 * torch.randn(rows, cols, generator=g)
    scale, zero = affine(x, axis, bits, g)
    by = torch.rand(rows, generator=g) if factor else None
    assert_kernels_agree(ops.quantize_pack, x, scale, zero, axis, bits, by)
    assert_kernels_agree(ops.fake_quantize, x, scale, zero, axis, bits)


@every_width
@pytest.mark.parametrize("axis", AXES)
def test_gathering(bits: int, axis: int) -> None:
    g = generator(bits)
    for cols in (1, 130):
        packed = misaligned(ops.pack(codes(9, cols, bits, g), bits))
        index = torch.randint(0, 9, (20,), generator=g, dtype=torch.int32)
        scale, zero = affine(torch.empty(9, cols), axis, bits, g)
        source = Source(packed, bits, cols)
        assert_kernels_agree(ops.gather_rows, source, index, 3, 17, scale, zero, axis)


@pytest.mark.parametrize("name", CODINGS.names())
def test_gathering_fields_of_other_codings(name: str) -> None:
    coding = CODINGS.get(name)
    bits, g = coding.widths[0], generator()
    packed = coding.encode(ops.pack(codes(9, 21, bits, g).clamp(max=2), bits), bits, 21)
    index = torch.randint(0, 9, (20,), generator=g, dtype=torch.int32)
    source, one = Source(packed, bits, 21, coding.number), torch.ones(1)
    assert_kernels_agree(ops.gather_rows, source, index, 0, 20, one, one, -1)


@every_width
def test_halves_go_to_even_and_odd_values_have_codes(bits: int) -> None:
    halves = torch.arange(-4, 2 * (1 << bits) + 4) / 2
    odd = (math.nan, math.inf, -math.inf, -0.0, 1e-45, -1e-45, 3e38, -3e38, 0.49999997, 254.49998)
    x = torch.cat([halves, torch.tensor(odd)]).view(1, -1)
    for scale in (1.0, 0.1, 1e-38, math.inf, 0.0):
        for zero in (0.0, -2.5, float(1 << (bits - 1))):
            given = torch.tensor([scale]), torch.tensor([zero])
            assert_kernels_agree(ops.quantize_pack, x, *given, -1, bits, None)
            assert_kernels_agree(ops.fake_quantize, x, *given, -1, bits)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), *SHAPES, st.sampled_from(AXES), st.sampled_from((0, 1, 2)), st.booleans())
def test_gradients(bits: int, rows: int, cols: int, axis: int, mode: int, halves: bool) -> None:
    g = generator(rows * 73 + cols)
    x = 3 * torch.randn(rows, cols, generator=g)
    scale, zero = affine(x, axis, bits, g)
    if halves:  # values where the code goes from one to the next
        x, scale, zero = (2 * x).round() / 2, torch.ones_like(scale), torch.zeros_like(zero)
    grad = torch.randn(rows, cols, generator=g)
    assert_kernels_agree(ops.fake_quantize_backward, grad, x, scale, zero, axis, bits, mode)
