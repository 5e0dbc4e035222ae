"""Observers against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.affine import affine_qparams, dequantize, quantize, symmetric_qparams
from nodebits.core.errors import ConfigError, NonFiniteError, NotCalibratedError
from nodebits.core.observer import (
    GridObserver,
    MinMaxObserver,
    Observer,
    PercentileObserver,
    SymmetricGridObserver,
    check_finite,
)


def batches() -> list[Tensor]:
    return [torch.randn(7, 3) * (i + 1) for i in range(4)]


@pytest.mark.parametrize(("axis", "dims"), [(-1, (0, 1)), (0, (1,)), (1, (0,))])
def test_running_extremes(axis: int, dims: tuple[int, ...]) -> None:
    observer = MinMaxObserver(axis)
    seen = batches()
    for batch in seen:
        observer.observe(batch)
    low, high = observer.range()
    assert torch.equal(low, torch.stack([b.amin(dims).view(-1) for b in seen]).amin(0))
    assert torch.equal(high, torch.stack([b.amax(dims).view(-1) for b in seen]).amax(0))


def test_moving_average() -> None:
    observer = MinMaxObserver(momentum=0.25)
    seen = batches()
    expected = float(seen[0].max())
    for batch in seen:
        observer.observe(batch)
    for batch in seen[1:]:
        expected = 0.75 * expected + 0.25 * float(batch.max())
    assert observer.range()[1].item() == pytest.approx(expected, rel=1e-6)


def test_nothing_observed() -> None:
    observer = MinMaxObserver()
    observer.observe(torch.zeros(0, 3))
    with pytest.raises(NotCalibratedError, match=r"calibrate"):
        observer.range()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 0.49]), st.integers(0, 9))
def test_percentile_is_the_kth_smallest(n: int, p: float, seed: int) -> None:
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    ordered = sorted(x.view(-1).tolist())
    observer = PercentileObserver(p)
    observer.observe(x)
    low, high = (v.item() for v in observer.range())
    assert low == ordered[max(1, math.floor(n * p)) - 1]
    assert high == ordered[math.ceil(n * (1 - p)) - 1]
    assert low <= high


def test_percentile_per_column_and_row() -> None:
    x = torch.randn(300, 4)
    columns, rows = PercentileObserver(0.05, axis=1), PercentileObserver(0.05, axis=0)
    columns.observe(x)
    rows.observe(x.t())
    expected = x.sort(0).values[[14, 284]]
    for observer in (columns, rows):
        assert torch.equal(torch.stack(observer.range()), expected)


@pytest.mark.parametrize("p", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("shape", ["normal", "uniform", "heavy", "columns", "relu"])
def test_sampled_percentile_rank_error(p: float, shape: str) -> None:
    rows, cols = 5000, 128
    x = torch.randn(rows, cols)
    if shape == "uniform":
        x = torch.rand(rows, cols)
    elif shape == "heavy":
        x = x / torch.randn(rows, cols).abs().clamp_min(1e-3)
    elif shape == "columns":  # what a stride that divides the row length would get wrong
        x = x * torch.logspace(-2, 2, cols)
    elif shape == "relu":
        x = x.relu()
    observer = PercentileObserver(p)
    observer.observe(x)
    bound = 5 * math.sqrt(p * (1 - p) / observer.sample)
    for value, target in zip(observer.range(), (p, 1 - p), strict=True):
        below, upto = float((x < value).float().mean()), float((x <= value).float().mean())
        # With ties the rank is an interval.
        assert below - bound <= target <= upto + bound


@pytest.mark.parametrize("p", [-0.1, 0.5, 1.0, math.nan])
def test_bad_percentile(p: float) -> None:
    with pytest.raises(ConfigError, match="percentile is"):
        PercentileObserver(p)


def test_grid_observer_clips_an_outlier() -> None:
    x = torch.randn(500, 2)
    x[0, 0] = 40.0
    observer = GridObserver(4)
    observer.observe(x)
    low, high = observer.range()
    assert low.item() <= 0 <= high.item() < 40.0


def test_tails_are_counted_where_a_sample_misses_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000, 130)
    x[7::2500] *= 6.0  # 8 rows of 20,000, of which a sample of 1,024 has none as a rule
    lost = []
    for tails in (False, True):
        observer = GridObserver(8, axis=1, tails=tails)
        observer.observe(x)
        params = affine_qparams(*observer.range(), 8)
        values = dequantize(quantize(x, *params, 8), *params)
        lost.append(float((values - x).norm()))
    assert lost[1] < 0.6 * lost[0] and lost[1] < 0.02 * float(x.norm())


@pytest.mark.parametrize(("columns", "gain"), [(8, 0.8), (512, 1.001)])
@pytest.mark.parametrize("bits", [3, 8])
def test_few_weights_of_a_scale_find_a_better_one(columns: int, gain: float, bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.rand(64, columns) - 0.5
    weight[5] = 0.0
    observer = SymmetricGridObserver(bits, axis=0)
    observer.observe(weight)
    low, high = observer.range()
    assert torch.equal(low, -high) and high[5] == 0

    def lost(extent: Tensor) -> float:
        scale, zero_point = symmetric_qparams(extent.view(-1, 1), bits)
        codes = quantize(weight, scale, zero_point, bits)
        return float((dequantize(codes, scale, zero_point) - weight).norm())

    assert lost(high) < gain * lost(weight.abs().amax(1))


def test_state_dict_carries_the_range() -> None:
    source: Observer = MinMaxObserver(axis=1)
    source.observe(torch.randn(5, 3))
    target = MinMaxObserver(axis=1)
    target.load_state_dict(source.state_dict())
    assert torch.equal(torch.stack(target.range()), torch.stack(source.range()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_counted_and_located(value: float) -> None:
    x = torch.zeros(4, 3)
    x[2, 1] = x[3, 0] = value
    with pytest.raises(NonFiniteError, match=r"features has 2 value\(s\).*at \[2, 1\]"):
        check_finite(x, "features")


def test_a_sum_that_overflows_is_finite_data() -> None:
    check_finite(torch.full((4, 2), 3e38), "features")
    with pytest.raises(NonFiniteError, match="1 value"):  # infinities of both signs cancel to NaN
        check_finite(torch.tensor([3e38, 3e38, math.inf]), "features")
