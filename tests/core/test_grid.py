"""The grid never loses to the plain extremes, in any form and by either error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.affine import (
    affine_qparams,
    max_code,
    quantize,
    symmetric_qparams,
    unsigned_qparams,
)
from nodebits.core.errors import ConfigError
from nodebits.core.grid import FORMS, grid_qparams


def extremes(x: Tensor, bits: int, form: str) -> tuple[Tensor, Tensor]:
    low, high = x.aminmax()
    if form == "affine":
        return affine_qparams(low, high, bits)
    if form == "unsigned":
        return unsigned_qparams(high.clamp_min(0), bits)
    if form == "symmetric":
        return symmetric_qparams(x.abs().max(), bits)
    scale = (high - low) / max_code(bits)
    return scale, max_code(bits) / 2 - x.mean() / scale


def cost(x: Tensor, bits: int, params: tuple[Tensor, Tensor], error: str) -> float:
    scale, zero_point = params
    difference = (quantize(x, scale, zero_point, bits) - zero_point) * scale - x
    return float((difference.square() if error == "mse" else difference.abs()).mean())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.sampled_from(FORMS),
    st.sampled_from(["mse", "mae"]),
    st.sampled_from([1.0, 0.2, 5.0]),
    st.integers(0, 99),
)
def test_not_worse_than_extremes(bits: int, form: str, error: str, power: float, seed: int) -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed))
    x = x.sign() * x.abs() ** power
    if form == "unsigned":
        x = x.abs()
    ours = cost(x, bits, grid_qparams(x, bits, -1, form, error), error)
    assert ours <= cost(x, bits, extremes(x, bits, form), error) * (1 + 1e-5) + 1e-12


def test_outliers_are_clipped() -> None:
    x = torch.randn(2000, 1)
    x[0] = 30.0
    best, plain = grid_qparams(x, 4, -1, "symmetric"), extremes(x, 4, "symmetric")
    assert best[0].item() < 0.5 * plain[0].item()
    assert cost(x, 4, best, "mse") < 0.7 * cost(x, 4, plain, "mse")


def test_axes_are_independent() -> None:
    x = torch.randn(50, 3) * torch.tensor([1.0, 10.0, 100.0])
    scale, zero_point = grid_qparams(x, 4, 1, "affine")
    assert scale.shape == zero_point.shape == (3,)
    for column in range(3):
        alone = grid_qparams(x[:, column : column + 1], 4, -1, "affine")
        assert scale[column] == alone[0] and zero_point[column] == alone[1]
    assert torch.equal(grid_qparams(x.t(), 4, 0, "affine")[0], scale)


def test_centered_levels_lie_evenly_around_the_mean() -> None:
    x = torch.randn(1000, 1) * 0.5 + 7.0
    scale, zero_point = grid_qparams(x, 1, -1, "centered")
    levels = (torch.tensor([0.0, 1.0]) - zero_point) * scale
    assert levels.mean().item() == pytest.approx(x.mean().item(), rel=1e-4)
    # Two levels of a normal distribution: the mean of each half, 0.8 deviations from the middle.
    assert (levels[1] - levels[0]).item() == pytest.approx(2 * 0.8 * 0.5, rel=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_all_zero(form: str) -> None:
    x = torch.zeros(6, 2)
    params = grid_qparams(x, 4, -1, form)
    assert params[0].item() == 1.0
    if form != "centered":
        assert cost(x, 4, params, "mse") == 0.0


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="range form is 'log'"):
        grid_qparams(torch.ones(2, 2), 4, -1, "log")
    with pytest.raises(ConfigError, match="grid error is 'max'"):
        grid_qparams(torch.ones(2, 2), 4, -1, "affine", "max")


@pytest.mark.parametrize("error", ["mse", "mae"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_fractions_at_once_are_those_one_by_one(
    axis: int, form: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: a range must not depend on how many fractions fit."""
    samples = [torch.randn(24, 8), (torch.randn(40, 12) > 1).float(), torch.randn(7, 1000).abs()]
    samples += [torch.zeros(5, 3), torch.full((3, 1), -2.5), torch.randn(200, 128)]
    for x in samples:
        together = grid_qparams(x, 4, axis, form, error)
        with monkeypatch.context() as patch:
            patch.setattr("nodebits.core.grid._AT_ONCE", 1)
            alone = grid_qparams(x, 4, axis, form, error)
        assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
