"""The rounding rule and the ranges, against exact arithmetic in Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodebits.core.affine import (
    MIN_SCALE,
    Codes,
    affine_qparams,
    check_bits,
    dequantize,
    max_code,
    quantize,
    symmetric_qparams,
    unsigned_qparams,
)
from nodebits.core.errors import BitwidthError

BITS = st.integers(1, 8)
# Far from overflow and from denormal numbers, where float32 has its usual precision.
END = st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)


def test_halves_round_to_even() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    x = torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5])
    assert quantize(x, one, zero, 8).tolist() == [0, 2, 2, 4, 4]


def test_zero_point_is_added_before_rounding() -> None:
    one = torch.ones(1)
    # Rounding first would give 0 + 1.
    assert quantize(torch.tensor([0.5]), one, one, 8).item() == 2
    assert quantize(torch.tensor([0.25]), one, torch.tensor([0.5]), 8).item() == 1


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-2000, 2000), st.integers(-1000, 1000), st.integers(-8, 8), st.integers(1, 7), BITS
)
def test_rule_in_exact_arithmetic(x: int, zero: int, power: int, odd: int, bits: int) -> None:
    # Quarters over small odd numbers times powers of two: sums are exact in float32, halves occur.
    scale = Fraction(2) ** power
    value = Fraction(x * odd, 4) * scale
    expected = round(value / scale + Fraction(zero, 4))  # Python rounds halves to even
    expected = min(max(expected, 0), 2**bits - 1)
    codes = quantize(
        torch.tensor([float(value)]),
        torch.tensor([float(scale)]),
        torch.tensor([zero / 4]),
        bits,
    )
    assert codes.dtype == torch.float32 and codes.item() == expected


@settings(max_examples=150, deadline=None)
@given(END, END, BITS)
def test_affine_range_contains_zero(a: float, b: float, bits: int) -> None:
    low, high = torch.tensor([min(a, b)]), torch.tensor([max(a, b)])
    scale, zero_point = affine_qparams(low, high, bits)
    assert scale.item() > 0
    assert zero_point.item() == round(zero_point.item())
    assert 0 <= zero_point.item() <= max_code(bits)
    zero = torch.zeros(1)
    assert dequantize(quantize(zero, scale, zero_point, bits), scale, zero_point).item() == 0
    x = torch.linspace(float(low.clamp(max=0)), float(high.clamp(min=0)), 33)
    error = (dequantize(quantize(x, scale, zero_point, bits), scale, zero_point) - x).abs()
    assert error.max() <= scale.item() * 0.5001 + 1e-6 * float(x.abs().max())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("value", [0.0, 3.5, -0.125])
def test_constants_are_exact(bits: int, value: float) -> None:
    x = torch.full((4,), value)
    scale, zero_point = affine_qparams(x.amin().view(1), x.amax().view(1), bits)
    back = dequantize(quantize(x, scale, zero_point, bits), scale, zero_point)
    torch.testing.assert_close(back, x, rtol=2e-7, atol=0.0)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_vanishing_ranges_do_not_divide_by_zero(bits: int) -> None:
    tiny = torch.tensor([0.0, MIN_SCALE / 4, 1e-40])
    for scale, zero_point in (
        affine_qparams(-tiny, tiny, bits),
        symmetric_qparams(tiny, bits),
        unsigned_qparams(tiny, bits),
    ):
        assert scale.eq(1).all()
        back = dequantize(quantize(tiny, scale, zero_point, bits), scale, zero_point)
        assert back.eq(0).all()


def test_the_widest_range_is_finite() -> None:
    x = torch.tensor([-3e38, 0.0, 3e38])
    scale, zero_point = affine_qparams(x[:1], x[2:], 8)
    back = dequantize(quantize(x, scale, zero_point, 8), scale, zero_point)
    assert torch.isfinite(back).all()


@settings(max_examples=80, deadline=None)
@given(st.floats(2.0**-20, 1e6, width=32), st.integers(2, 8))
def test_symmetric_reaches_its_extent(extent: float, bits: int) -> None:
    scale, zero_point = symmetric_qparams(torch.tensor([extent]), bits)
    assert zero_point.item() == 2 ** (bits - 1)
    x = torch.tensor([-extent, 0.0, extent])
    back = dequantize(quantize(x, scale, zero_point, bits), scale, zero_point)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=0.0)


def test_symmetric_at_one_bit_has_a_negative_level_and_zero() -> None:
    scale, zero_point = symmetric_qparams(torch.tensor([2.0]), 1)
    levels = dequantize(torch.tensor([0.0, 1.0]), scale, zero_point)
    assert levels.tolist() == [-2.0, 0.0]


@settings(max_examples=80, deadline=None)
@given(st.floats(2.0**-20, 1e6, width=32), BITS)
def test_unsigned_has_no_offset(high: float, bits: int) -> None:
    scale, zero_point = unsigned_qparams(torch.tensor([high]), bits)
    assert zero_point.item() == 0
    codes = quantize(torch.tensor([-high, 0.0, high]), scale, zero_point, bits)
    assert codes.tolist() == [0, 0, 2**bits - 1]


@pytest.mark.parametrize("bits", [0, 9, -1, 32, True, False, 4.0, "4", None, np.float32(4)])
def test_bad_widths_are_refused(bits: object) -> None:
    with pytest.raises(BitwidthError, match=r"weight_bits is .*from 1 to 8"):
        check_bits(bits, "weight_bits")  # type: ignore[arg-type]


def test_good_widths_pass() -> None:
    assert [check_bits(bits) for bits in range(1, 9)] == list(range(1, 9))


def test_codes_dequantize() -> None:
    codes = Codes(torch.tensor([[0.0, 3.0]]), torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.0]), 2)
    assert codes.dequantize().tolist() == [[-0.5, 6.0]]
