"""SMP's method: the learned range at a site, its presets, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nodebits
from nodebits.core.errors import ConfigError, NotCalibratedError
from nodebits.engine.sites import ShiftedRows
from nodebits.methods import SMPConfig
from nodebits.models import ModelSpec, build_model
from nodebits.nn.quantizers import LearnedQuantizer, LearnedRangeQuantizer, calibration

NODES, WIDTH = 30, 12


def values() -> Tensor:
    return torch.randn(60, 5) ** 3 + 0.3


def calibrated(x: Tensor, bits: int, columns: int | None, **options: Any) -> LearnedRangeQuantizer:
    quantizer = LearnedRangeQuantizer(bits, columns, **options).eval()
    with calibration(quantizer):
        quantizer(x)
    return quantizer


@pytest.mark.parametrize("columns", [None, 5])
@pytest.mark.parametrize("form", ["affine", "centered"])
@pytest.mark.parametrize("bits", [2, 4])
def test_factor_gradient(bits: int, form: str, columns: int | None) -> None:
    """Outside the range, where nothing is rounded, the gradient is the finite difference. Inside,
    the rounding residual is a constant of the step (LSQ): the difference at fixed codes."""
    x, step = values(), 1e-3
    quantizer = calibrated(x, bits, columns, form=form)
    upstream = torch.randn_like(x)
    codes = quantizer(x)
    (codes.dequantize() * upstream).sum().backward()
    assert quantizer.factor.grad is not None

    def at(factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            quantizer.factor.copy_(factor)
            scale, zero = quantizer.qparams()
            return scale.double(), zero.double(), x.double() / scale.double() + zero.double()

    base = quantizer.factor.detach().clone()
    _, _, v = at(base)
    inside = (v >= 0) & (v <= 2**bits - 1)
    residual = torch.round(v) - v  # straight through: rounding adds a constant

    def output(factor: Tensor) -> Tensor:
        scale, zero, moved = at(factor)
        rounded = torch.where(inside, moved + residual, v.clamp(0, 2**bits - 1).round())
        return ((rounded - zero) * scale * upstream.double()).sum(0 if columns else (0, 1))

    difference = (output(base + step) - output(base - step)) / (2 * step)
    torch.testing.assert_close(
        quantizer.factor.grad.double(), difference.view_as(quantizer.factor), rtol=2e-3, atol=2e-3
    )


def test_gradient_of_x_is_cut_outside() -> None:
    x = values().requires_grad_()
    quantizer = calibrated(x.detach(), 2, None)
    codes = quantizer(x)
    codes.dequantize().sum().backward()
    v = x.detach() / codes.scale.detach() + codes.zero_point
    assert x.grad is not None
    torch.testing.assert_close(x.grad, ((v >= 0) & (v <= 3)).float())


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (8, {}),
        (4, {"grid": False}),
        (2, {"form": "centered"}),
        (1, {"form": "centered"}),
        (2, {"snap": "bt"}),
        (2, {"snap": "bt_skew"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("columns", [None, 5])
def test_frozen_codes_are_the_simulated(
    bits: int, options: dict[str, Any], columns: int | None
) -> None:
    x = values()
    quantizer = calibrated(x, bits, columns, **options)
    rows, codes = quantizer.freeze().pack(x), quantizer(x)
    assert rows.bits == bits and rows.data.packed.size(1) == -(-5 * bits // 8)
    assert torch.equal(rows.codes().float(), codes.codes)
    assert torch.equal(rows.dequantize(), codes.dequantize())


def test_skew_shifts_where_codes_are_made() -> None:
    x = torch.rand(500, 1) ** 12
    plain = calibrated(x, 2, None, snap="bt")
    skewed = calibrated(x, 2, None, snap="bt_skew")
    frozen = skewed.freeze()
    assert isinstance(frozen, ShiftedRows) and float(frozen.shift) == pytest.approx(3 / 85, rel=0.5)
    assert float(skewed.qparams()[1]) == float(plain.qparams()[1])


def test_extremes_follow_and_ranges_learn() -> None:
    x = values()
    quantizer = LearnedRangeQuantizer(4, momentum=0.5)
    quantizer(x)
    high, factor = quantizer.high.clone(), quantizer.factor.detach().clone()
    quantizer(3 * x)
    torch.testing.assert_close(quantizer.high, 2 * high)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    quantizer(x).dequantize().square().sum().backward()
    optimizer.step()
    assert not torch.equal(quantizer.factor, factor)
    high = quantizer.high.clone()
    quantizer.eval()(100 * x)
    assert torch.equal(quantizer.high, high)
    quantizer.reset()
    with pytest.raises(NotCalibratedError, match="learned range has seen no data"):
        quantizer(x)


CONFIGS = [
    *({"ranges": ranges} for ranges in ("learned", "grid", "minmax", "scale")),
    {"snap": "none"},
    {"snap": "bt_skew"},
    {"preset": "published"},
    {"preset": "published", "snap": "bt_skew"},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
@pytest.mark.parametrize("bits", [8, 2])
def test_model_round_trip(bits: int, options: dict[str, Any], tmp_path: Path) -> None:
    spec = ModelSpec("smp", WIDTH, 8, 3, steps=4)
    x, index = torch.randn(NODES, WIDTH), torch.randint(NODES, (2, 90))
    model = nodebits.prepare(build_model(spec), SMPConfig(bits=bits, **options))
    model.train()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        model(x, index).square().sum().backward()
        optimizer.step()
    model.eval()
    expected = model(x, index)
    nodebits.convert(model, spec).save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict(x, index), expected)


@pytest.mark.parametrize(
    ("options", "snap"),
    [
        ({}, "bt"),
        ({"snap": "none"}, "none"),
        ({"ranges": "learned"}, "none"),
        ({"ranges": "scale"}, "none"),
        ({"preset": "published"}, "none"),
    ],
)
def test_two_bits_are_cut_by_default(options: dict[str, Any], snap: str) -> None:
    model = build_model(ModelSpec("appnp", WIDTH, 8, 3, steps=2))
    for bits, expected in ((2, snap), (4, "none")):
        prepared = nodebits.prepare(model, SMPConfig(bits=bits, **options))
        assert getattr(prepared.propagation.message_1, "snap", "none") == expected


@pytest.mark.parametrize(
    ("options", "bits", "kind", "learns"),
    [
        ({}, 8, LearnedRangeQuantizer, False),
        ({}, 4, LearnedRangeQuantizer, False),
        ({}, 2, LearnedRangeQuantizer, True),
        ({}, 1, LearnedQuantizer, True),
        ({"snap": "none"}, 2, LearnedQuantizer, True),
        ({"ranges": "scale"}, 4, LearnedQuantizer, True),
        ({"preset": "published"}, 4, LearnedRangeQuantizer, True),
    ],
)
def test_ranges_by_default(options: dict[str, Any], bits: int, kind: type, learns: bool) -> None:
    model = build_model(ModelSpec("appnp", WIDTH, 8, 3, steps=2))
    site = nodebits.prepare(model, SMPConfig(bits=bits, **options)).propagation.message_1
    assert type(site) is kind
    learned = [name for name, p in site.named_parameters() if p.requires_grad]
    assert bool(learned) == learns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": "wide"}, "ranges is 'wide'"),
        ({"snap": "bt3"}, "snap is 'bt3'"),
        ({"momentum": 0.0}, "momentum is 0.0"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SMPConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "odd"}, "range form is 'odd'"),
        ({"snap": "cut"}, "snap is 'cut'"),
        ({"snap": "bt", "form": "centered"}, "cuts affine 8-bit codes"),
        ({"momentum": 2.0}, "momentum is 2.0"),
    ],
)
def test_quantizer_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearnedRangeQuantizer(2, **options)
