"""Scales of rows of their own: what is cut of a range, and what is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodebits.core.own_scale import TRIMMED_BITS, OwnScale

_SIZES = st.just(0.0) | st.floats(2.0**-90, 2.0**90, width=32)


def codes(x: torch.Tensor, own: OwnScale) -> torch.Tensor:
    """Less the zero point."""
    scale = own.scale(x).view(-1, 1)
    top = (1 << own.bits) - 1
    return (x / scale + own.zero_point).round().clamp(0, top) - own.zero_point


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, TRIMMED_BITS + 1))
def test_half_of_a_row_keeps_a_code(bits: int, signed: bool) -> None:
    x = torch.rand(50, 300, generator=torch.Generator().manual_seed(0)).pow(3)
    x[:, ::3] = 0.0
    if signed:
        x[:, ::2] *= -1
        x = x if bits > 1 else -x.abs()  # at one bit no code stands for more than zero
    there = (x != 0).sum(1)
    cut, whole = (codes(x, OwnScale(bits, signed, trim)) for trim in (True, False))
    assert (whole != 0).sum() < there.sum() // 2
    assert (2 * (cut != 0).sum(1) >= there).all()


@given(st.integers(1, 8), st.booleans(), st.lists(_SIZES, max_size=40))
def test_a_range_shrinks_at_most_tenfold_and_order_does_not_matter(
    bits: int, signed: bool, values: list[float]
) -> None:
    x = torch.tensor([values, values[::-1]], dtype=torch.float32).view(2, len(values))
    cut, whole = OwnScale(bits, signed, True).extent(x), OwnScale(bits, signed).extent(x)
    assert cut[0] == cut[1] and (cut <= whole).all() and (cut >= 0.1 * whole).all()


@pytest.mark.parametrize("bits", range(1, TRIMMED_BITS + 1))
def test_zeros_and_ones_stay_exact(bits: int) -> None:
    x = (torch.rand(20, 400, generator=torch.Generator().manual_seed(1)) < 0.1).float()
    x[3] = 0.0
    own = OwnScale.usual(bits, False)
    assert own.trim
    assert torch.equal(codes(x * 0.37, own) * own.scale(x * 0.37).view(-1, 1), x * 0.37)
    assert not OwnScale.usual(TRIMMED_BITS + 1, False).trim
