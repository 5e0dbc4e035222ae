"""Quantizers alone: gradients against LSQ, protected rows, memos, frozen forms."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodebits.core.errors import (
    BitwidthError,
    ConfigError,
    NonFiniteError,
    NotCalibratedError,
    UnknownNameError,
)
from nodebits.core.observer import GridObserver, MinMaxObserver
from nodebits.engine.sites import rows_from_config
from nodebits.graph import graph_scope
from nodebits.nn.quantizers import (
    DynamicRowQuantizer,
    FloatQuantizer,
    LearnedQuantizer,
    LearnedWeightQuantizer,
    ObservedQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    calibration,
)
from nodebits.ops.autograd import FakeQuantize, Gradient

from .cases import BITS

MAKERS = {
    "observed": lambda bits: ObservedQuantizer(bits, MinMaxObserver()),
    "observed by column": lambda bits: ObservedQuantizer(bits, MinMaxObserver(axis=1)),
    "symmetric": lambda bits: ObservedQuantizer(bits, MinMaxObserver(), symmetric=True),
    "grid": lambda bits: ObservedQuantizer(bits, GridObserver(bits)),
    "learned": lambda bits: LearnedQuantizer(bits),
    "learned by column": lambda bits: LearnedQuantizer(bits, 6),
    "centered": lambda bits: LearnedQuantizer(bits, 6, centered=True),
    "dynamic": lambda bits: DynamicRowQuantizer(bits),
}


def calibrated(quantizer: Quantizer, x: Tensor) -> Quantizer:
    quantizer.eval()
    with calibration(quantizer):
        quantizer(x)
    return quantizer


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("positive", [False, True])
def test_frozen_form_makes_the_same_codes(name: str, bits: int, positive: bool) -> None:
    x = torch.randn(9, 6)
    x = x.abs() if positive else x
    quantizer = calibrated(MAKERS[name](bits), x)
    with torch.no_grad():
        codes = quantizer(x)
    frozen = quantizer.freeze()
    packed = frozen.pack(x)
    assert packed.data.name == "dense"
    assert torch.equal(packed.codes().float(), codes.codes)
    assert torch.equal(packed.dequantize(), codes.dequantize())
    again = rows_from_config(frozen.config())
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again.pack(x).data.packed, packed.data.packed)
    if positive and name != "centered":
        assert codes.zero_point.eq(0).all()


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "dynamic"])
def test_no_data_no_codes(name: str) -> None:
    quantizer = MAKERS[name](4)
    for use in (lambda: quantizer.eval()(torch.ones(2, 6)), quantizer.freeze):
        with pytest.raises(NotCalibratedError, match=r"calibrate"):
            use()
    calibrated(quantizer, torch.randn(5, 6))
    quantizer.reset()
    with pytest.raises(NotCalibratedError):
        quantizer(torch.ones(2, 6))


@pytest.mark.parametrize("name", MAKERS)
def test_non_finite_is_refused(name: str) -> None:
    x = torch.zeros(3, 6)
    x[1, 4] = math.nan
    with pytest.raises(NonFiniteError, match=r"1 value.*\[1, 4\]"):
        calibrated(MAKERS[name](4), x)


@pytest.mark.parametrize("name", MAKERS)
def test_bad_width(name: str) -> None:
    if name != "grid":
        with pytest.raises(BitwidthError):
            MAKERS[name](9)


def test_unknown_kind() -> None:
    with pytest.raises(UnknownNameError, match="row quantizer kind"):
        rows_from_config({"kind": "statik", "bits": 4})


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 99))
def test_scale_gradient_is_lsq(bits: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(7, 3, generator=g) * 2, torch.randn(7, 3, generator=g)
    quantizer = LearnedQuantizer(bits, 3).train()
    quantizer(x)
    with torch.no_grad():
        quantizer.scale.mul_(0.6)  # so that some values lie outside
    quantizer(x).dequantize().backward(upstream)
    # Esser et al. 2020, equations 3 and 5 (with the number of levels for Q_P).
    negative, positive = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    v = x / quantizer.scale.detach()
    inside = (v > negative) & (v < positive)
    slope = torch.where(inside, torch.round(v) - v, v.clamp(negative, positive))
    expected = (slope * upstream).sum(0) / math.sqrt(7 * (2**bits - 1))
    torch.testing.assert_close(quantizer.scale.grad, expected, rtol=1e-4, atol=1e-5)


def test_zero_point_gradient() -> None:
    """Only clipped values move a zero point: inside, codes follow it and the offset cancels."""
    x = torch.tensor([[-9.0], [0.4], [9.0]])
    quantizer = LearnedQuantizer(2, centered=True).train()
    quantizer(torch.randn(50, 1))
    y = quantizer(x).dequantize()
    y.backward(torch.tensor([[1.0], [10.0], [100.0]]))
    factor = 1 / math.sqrt(3 * 3)
    expected = -(1.0 + 100.0) * quantizer.scale.item() * factor
    assert quantizer.zero_point.grad is not None
    assert quantizer.zero_point.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Gradient.CLIP, [0, 1, 1, 1, 1, 0]),
        (Gradient.PASS, [1, 1, 1, 1, 1, 1]),
        (Gradient.STRICT, [0, 0, 1, 1, 0, 0]),
    ],
)
def test_gradient_modes(mode: Gradient, expected: list[float]) -> None:
    # Two bits: outside, at the first code, at the two inner ones, at the last code, outside.
    x = torch.tensor([[-1.0, 0.1, 1.2, 1.8, 2.9, 4.0]], requires_grad=True)
    codes = FakeQuantize.apply(x, torch.ones(1), torch.zeros(1), -1, 2, int(mode))
    codes.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [expected]


def test_learned_scales_need_a_clipped_gradient() -> None:
    with pytest.raises(ConfigError, match="CLIP or STRICT"):
        LearnedQuantizer(4, gradient=Gradient.PASS)


@pytest.mark.parametrize("bits", BITS)
def test_dynamic_rows_are_exact_on_features_of_ones(bits: int) -> None:
    x = (torch.rand(30, 300) < 0.05).float()
    x[3] = 0
    normalized = x / x.sum(1, keepdim=True).clamp_min(1)
    for features in (x, normalized):
        quantizer = calibrated(DynamicRowQuantizer(bits), features)
        back = quantizer(features).dequantize()
        torch.testing.assert_close(back, features, rtol=1e-6, atol=0.0)
    if bits == 1:
        assert torch.equal(calibrated(DynamicRowQuantizer(1), x)(x).dequantize(), x)


def test_dynamic_rows_notice_signs() -> None:
    x = torch.randn(20, 10)
    quantizer = calibrated(DynamicRowQuantizer(8), x.abs())
    assert not bool(quantizer.signed)  # type: ignore[arg-type]
    calibrated(quantizer, x)
    error = (quantizer(x).dequantize() - x).abs().amax(1)
    assert bool((error <= x.abs().amax(1) / 127).all())


@pytest.mark.parametrize("name", ["observed", "dynamic"])
def test_memo(name: str) -> None:
    x = torch.rand(20, 6)
    quantizer = calibrated(MAKERS[name](4), x)
    first = quantizer(x)
    assert quantizer(x).codes is first.codes
    assert quantizer(x.clone()).codes is not first.codes
    quantizer(x)
    x[0] = 0.0
    second = quantizer(x)
    assert second.codes is not first.codes
    assert torch.equal(second.codes, quantizer(x.clone()).codes)
    twin = copy.deepcopy(quantizer)
    assert torch.equal(twin(x).codes, quantizer(x).codes)


def test_memo_follows_the_range() -> None:
    """However many batches came between: the id of an old range is soon that of a new one."""
    x = torch.rand(20, 6)
    quantizer = calibrated(ObservedQuantizer(4, MinMaxObserver(axis=1)), x)
    for step in range(100):
        quantizer.eval()
        assert torch.equal(quantizer(x).scale, quantizer.qparams()[0])
        quantizer.train()
        for _ in range(step % 6):  # with a gradient, so that the memo keeps its entry
            quantizer(torch.rand(9, 6, requires_grad=True) * (1 + step))


def test_memo_is_not_kept_for_what_is_trained() -> None:
    x = torch.rand(20, 6, requires_grad=True)
    quantizer = calibrated(ObservedQuantizer(4, MinMaxObserver()), x)
    assert quantizer(x).codes is not quantizer(x).codes


def test_sparse_rows_of_constant_features() -> None:
    x = (torch.rand(40, 300) < 0.03).float()
    quantizer = calibrated(DynamicRowQuantizer(2), x)
    codes = quantizer(x).codes
    rows = quantizer.sparse(x)
    assert rows is not None and rows is quantizer.sparse(x)
    rebuilt = torch.zeros_like(x)
    assert rows.edge_weight is not None
    rebuilt[rows.rows, rows.indices.long()] = rows.edge_weight
    assert torch.equal(rebuilt, codes)
    x[:, :100] = 1.0  # dense now
    quantizer(x)
    assert quantizer.sparse(x) is None


def protected_and_rest() -> tuple[Tensor, Tensor]:
    x = torch.randn(10, 6)
    x[[2, 5]] *= 50
    mask = torch.zeros(10, dtype=torch.bool)
    mask[[2, 5]] = True
    return x, mask


@pytest.mark.parametrize("kind", ["observed", "learned"])
def test_protected_rows_pass_and_are_not_observed(kind: str) -> None:
    x, mask = protected_and_rest()
    quantizer: Quantizer = (
        ObservedQuantizer(4, MinMaxObserver(), protectable=True)
        if kind == "observed"
        else LearnedQuantizer(4, protectable=True)
    )
    x.requires_grad_()
    with graph_scope(protected=mask):
        codes = quantizer.train()(x)
    y = codes.dequantize()
    torch.testing.assert_close(y[mask], x[mask], rtol=1e-5, atol=1e-4)
    # Outliers would make a step of about 10.
    assert codes.scale.item() < 1.0
    y[mask].sum().backward()
    assert x.grad is not None and x.grad.eq(mask.float().view(-1, 1)).all()
    with graph_scope(protected=mask):
        assert quantizer.eval()(x).codes.max() <= 15


def test_only_protectable_sites_protect() -> None:
    x, mask = protected_and_rest()
    with graph_scope(protected=mask):
        codes = ObservedQuantizer(4, MinMaxObserver()).train()(x).codes
    assert torch.equal(codes, codes.round()) and codes.max() == 15


def test_float_quantizer_changes_nothing() -> None:
    x = torch.randn(3, 4)
    codes = FloatQuantizer()(x)
    assert codes.bits is None and torch.equal(codes.dequantize(), x)
    assert torch.equal(FloatQuantizer().freeze().pack(x, torch.full((3,), 2.0)).codes(), 2 * x)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("midrise", [False, True])
@pytest.mark.parametrize("kind", ["learned", "observed"])
def test_packed_weights_hold_the_codes(bits: int, midrise: bool, kind: str) -> None:
    weight = torch.randn(5, 11)
    quantizer = (
        LearnedWeightQuantizer(bits, 5, midrise=midrise)
        if kind == "learned"
        else ObservedWeightQuantizer(bits, MinMaxObserver(axis=0), midrise=midrise)
    ).eval()
    codes, scale = quantizer(weight)
    packed = quantizer.freeze(weight)
    assert packed.packed.dtype == torch.uint8
    assert torch.equal(packed.codes(), codes) and torch.equal(packed.scale, scale)
    assert torch.equal(packed.col_sum, codes.sum(1))
    assert float(codes.abs().max()) <= packed.max_magnitude
    if midrise and bits < 8:  # odd integers: no zero
        assert (codes.abs() % 2).eq(1).all()
    else:
        assert codes.min() >= -(2 ** (bits - 1)) and codes.max() < 2 ** (bits - 1)


def test_noise_keeps_a_share_of_the_weights() -> None:
    weight = torch.randn(50, 200)
    quantizer = LearnedWeightQuantizer(2, 50, midrise=True, keep_share=0.3).train()
    codes, scale = quantizer(weight)
    kept = torch.isclose(codes * scale.view(-1, 1), weight, rtol=1e-4, atol=1e-6)
    assert kept.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert not torch.equal(kept, torch.isclose(quantizer(weight)[0] * scale.view(-1, 1), weight))
    exact = quantizer.eval()(weight)[0]
    assert torch.equal(exact, exact.round())
