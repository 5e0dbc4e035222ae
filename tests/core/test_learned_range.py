"""Ranges as factors of extremes, their gradient, and the truncated 2-bit codes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.affine import quantize
from nodebits.core.errors import ConfigError
from nodebits.core.learned_range import (
    FORMS,
    factor_qparams,
    initial_factor,
    skewness,
    snap_qparams,
    span_of,
)


def values(rows: int = 200, cols: int = 5) -> Tensor:
    return torch.randn(rows, cols) ** 3 + 0.3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_factor_one_covers_the_extremes(bits: int, form: str) -> None:
    low, high = torch.tensor([-1.5]), torch.tensor([4.0])
    scale, zero = factor_qparams(torch.ones(1), low, high, (low + high) / 2, bits, form)
    ends = (torch.tensor([0.0, 2.0**bits - 1]) - zero) * scale
    slack = float(scale) / 2 + 1e-5 if form == "affine" else 1e-5  # its zero point is whole
    assert abs(float(ends[0] + 1.5)) <= slack and abs(float(ends[1] - 4.0)) <= slack


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_initial_factor_is_no_worse_than_the_extremes(bits: int, form: str, axis: int) -> None:
    x = values()
    low, high = (x.amin(0), x.amax(0)) if axis == 1 else (x.min().view(1), x.max().view(1))
    center = x.mean(0) if axis == 1 else x.mean().view(1)

    def error(factor: Tensor) -> float:
        scale, zero = factor_qparams(factor, low, high, center, bits, form)
        return float(((quantize(x, scale, zero, bits) - zero) * scale - x).abs().mean())

    found = initial_factor(x, bits, axis, form, "none")
    assert found.shape == low.shape and bool(((found > 0) & (found <= 1)).all())
    assert error(found) <= error(torch.ones_like(found)) + 1e-6
    if bits == 2:  # cubed normals have long tails: the whole range is a bad one
        assert error(found) < 0.9 * error(torch.ones_like(found))


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-50, 0),
    high=st.floats(0.01, 50),
    factor=st.floats(0.05, 1),
    skew=st.integers(-9, 9),
)
def test_truncation_is_a_two_bit_code(low: float, high: float, factor: float, skew: int) -> None:
    """Snapping an 8-bit code to 0, 85, 170, 255 is rounding once at 85 times the scale."""
    args = (torch.tensor([v]) for v in (factor, low, high, 0.0))
    scale, zero = factor_qparams(*args, 8, "affine")
    # Between 8-bit ties, where float rounding decides in either form.
    codes8 = torch.arange(-20, 300).double()
    x = ((codes8 - zero.double() + 0.25) * scale.double()).float()
    # Published: c <- 85 round((c + skew) / 85), clipped to 255.
    eight = quantize(x, scale, zero, 8)
    published = (85 * torch.round((eight + skew) / 85)).clamp(0, 255)
    wide, fraction = snap_qparams(scale, zero)
    two = quantize(x, wide, fraction + skew / 85, 2)
    inside = (eight > 0) & (eight < 255)
    assert torch.equal(85 * two[inside], published[inside])
    assert set((85 * two).unique().tolist()) <= {0.0, 85.0, 170.0, 255.0}
    torch.testing.assert_close(
        (two - fraction) * wide, (85 * two - zero) * scale, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("snap", ["bt", "bt_skew"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_snapped_factor(snap: str, axis: int) -> None:
    factor = initial_factor(values(), 2, axis, "affine", snap)
    assert factor.numel() == (5 if axis == 1 else 1)
    assert bool(((factor > 0) & (factor <= 1)).all())


def test_skewness() -> None:
    stats = pytest.importorskip("scipy.stats")
    x = torch.rand(500, 3) ** 4
    assert float(skewness(x)) == pytest.approx(stats.skew(x.numpy().ravel()), rel=1e-4)
    assert float(skewness(torch.ones(4, 2))) == 0.0


def test_empty_range() -> None:
    for form in FORMS:
        span, center = span_of(torch.zeros(2), torch.zeros(2), 4, form)
        assert bool((span == 1).all()) and bool((center == 0).all())


def test_unknown_form() -> None:
    with pytest.raises(ConfigError, match="range form is 'odd'"):
        span_of(torch.zeros(1), torch.ones(1), 4, "odd")
