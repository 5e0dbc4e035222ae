"""Uniform quantization: what sits where, and what each mode trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GATConv

import nodebits
from nodebits.core.errors import BitwidthError, ConfigError, NotCalibratedError, UnknownNameError
from nodebits.core.observer import GridObserver, MinMaxObserver, SymmetricGridObserver
from nodebits.methods import UniformConfig, make_config, method_names
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    DynamicRowQuantizer,
    FloatQuantizer,
    LearnedQuantizer,
    LearnedWeightQuantizer,
    ObservedQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    WeightQuantizer,
)
from nodebits.ops.autograd import Gradient


def site(kind: str = "message", cols: int = 16, layer: str = "convs.0", name: str = "") -> SiteInfo:
    return SiteInfo(layer, "GCNConv", kind, name or kind, cols, 8)


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(20, 12), torch.randint(20, (2, 60))


def test_width_by_kind() -> None:
    config = UniformConfig(bits=4, input_bits=5, weight_bits=3, message_bits=2, output_bits=6)
    widths = {k: config.bits_at(site(k)) for k in ("input", "weight", "message", "output")}
    assert widths == {"input": 5, "weight": 3, "message": 2, "output": 6}
    assert config.bits_at(site("attention")) == 8
    # The few attention vectors are as wide as attention, not as weights.
    assert config.bits_at(site("weight", name="att_weight")) == 8
    assert UniformConfig(bits=4).bits_at(site("output")) is None
    assert UniformConfig(bits=4, preset="published").bits_at(site("output")) == 4


def test_the_last_matching_override_wins() -> None:
    overrides = {"convs.0.*": 2, "*.message": 3, "convs.1.lin.weight": 32}
    config = UniformConfig(bits=4, overrides=overrides)
    assert config.bits_at(site("message")) == 3
    assert config.bits_at(site("output")) == 2
    assert config.bits_at(site("message", layer="convs.1")) == 3
    assert config.bits_at(site("weight", layer="convs.1.lin")) is None
    assert config.bits_at(site("weight", layer="convs.0.lin")) == 2
    assert config.bits_at(site("weight", layer="convs.2.lin")) == 4
    assert config.bits_at(site("message", layer="")) == 4  # the model itself: path "message"


def test_overrides_reach_the_sites() -> None:
    model = GCN(12, 8, 3, 5)
    overrides = {"convs.1.message": 2, "*.lin.weight": 7, "convs.2.*": 32}
    prepared = nodebits.prepare(model, UniformConfig(bits=4, overrides=overrides))
    convs = [prepared.get_submodule(f"convs.{i}") for i in range(3)]
    assert [c.message.bits for c in convs] == [4, 2, None]  # type: ignore[union-attr]
    assert isinstance(convs[2].message, FloatQuantizer)
    assert prepared.get_submodule("convs.0.lin.quantized_weight").bits == 7


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 0},
        {"bits": 9},
        {"bits": True},
        {"bits": 4.0},
        {"weight_bits": 16},
        {"attention_bits": -1},
        {"overrides": {"*.message": 12}},
    ],
    ids=str,
)
def test_bad_widths(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(BitwidthError, match=f"{name}.* from 1 to 8"):
        UniformConfig(**options)


@pytest.mark.parametrize(
    "options", [{"mode": "pqt"}, {"preset": "paper"}, {"noise": 0.0}, {"noise": 1.5}], ids=str
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} (is|must)"):
        UniformConfig(**options)


def test_make_config() -> None:
    assert make_config("uniform", 3, mode="ptq") == UniformConfig(bits=3, mode="ptq")
    assert method_names() == ["a2q", "degree-quant", "mixq", "sgquant", "smp", "uniform"]
    with pytest.raises(UnknownNameError, match="did you mean 'degree-quant'"):
        make_config("degree_quant")
    with pytest.raises(ConfigError, match=r"'uniform' has no option 'p_max'.*noise"):
        make_config("uniform", p_max=0.1)
    with pytest.raises(BitwidthError):
        make_config("uniform", 12)
    assert make_config("uniform", 3).to_json()["method"] == "uniform"


def test_quantizers_of_qat() -> None:
    config = UniformConfig(bits=4)
    message = config.quantizer(site("message"), 4)
    assert isinstance(message, LearnedQuantizer) and message.scale.numel() == 16
    hidden = config.quantizer(site("input"), 4)
    assert isinstance(hidden, LearnedQuantizer) and hidden.axis == -1
    assert isinstance(config.quantizer(site("input", 256), 4), DynamicRowQuantizer)
    raw = config.quantizer(site("message", 256), 4)
    assert isinstance(raw, ObservedQuantizer) and raw.axis == 1
    for bits in (1, 2, 3, 4):
        weight = config.weight_quantizer(site("weight"), bits)
        assert isinstance(weight, LearnedWeightQuantizer) and weight.scale.numel() == 8
        learned = config.quantizer(site("message"), bits)
        assert isinstance(learned, LearnedQuantizer)
        assert weight.midrise == learned.centered == (bits <= 2)


def test_quantizers_of_ptq_and_of_the_published_baseline() -> None:
    config = UniformConfig(bits=4, mode="ptq")
    rows, weight = config.quantizer(site(), 4), config.weight_quantizer(site("weight"), 4)
    assert isinstance(rows, ObservedQuantizer) and isinstance(weight, ObservedWeightQuantizer)
    assert isinstance(rows.observer, GridObserver) and rows.observer.tails
    assert isinstance(weight.observer, SymmetricGridObserver)
    config = UniformConfig(bits=4, preset="published")
    for quantizer in (config.quantizer(site(), 4), config.weight_quantizer(site("weight"), 4)):
        assert isinstance(quantizer, ObservedQuantizer | ObservedWeightQuantizer)
        assert type(quantizer.observer) is MinMaxObserver
        assert quantizer.observer.momentum == 0.01 and quantizer.observer.axis == -1
        assert quantizer.gradient is Gradient.PASS


def test_ptq_ranges_come_from_calibration_alone() -> None:
    x, index = inputs()
    torch.manual_seed(1)
    model = GAT(12, 8, 2, 8, heads=2).eval()
    prepared = nodebits.prepare(model, UniformConfig(bits=8, mode="ptq"))
    assert not prepared.training
    with pytest.raises(NotCalibratedError, match="calibrate"):
        prepared(x, index)
    nodebits.calibrate(prepared, x, index)
    nodebits.calibrate(prepared, 2 * x, index)  # several batches
    state = {k: v.clone() for k, v in prepared.state_dict().items()}
    y = prepared(x, index)
    prepared(100 * x, index)
    assert all(torch.equal(v, state[k]) for k, v in prepared.state_dict().items())
    assert (y - model(x, index)).abs().max() < 0.2
    # Nothing but the model's own parameters is left to train.
    names = {n for n, _ in prepared.named_parameters()}
    assert names == {n for n, _ in model.named_parameters()}


def test_calibration_keeps_the_mode_and_makes_no_graph() -> None:
    prepared = nodebits.prepare(GATConv(12, 4, dropout=0.9), UniformConfig(bits=4)).train()
    nodebits.calibrate(prepared, *inputs())
    assert prepared.training
    assert all(p.grad is None for p in prepared.parameters())
    assert not any(m.calibrating for m in prepared.modules() if isinstance(m, Quantizer))


@pytest.mark.parametrize("preset", ["default", "published"])
def test_nqat_rounds_a_share_in_training_and_all_in_evaluation(preset: str) -> None:
    config = UniformConfig(bits=4, mode="nqat", noise=0.7, preset=preset)
    prepared = nodebits.prepare(nn.Linear(100, 50), config).train()
    quantizer, weight = prepared.quantized_weight, prepared.weight
    assert isinstance(quantizer, WeightQuantizer) and isinstance(weight, Tensor)
    codes = quantizer(weight).codes
    kept = (codes != codes.round()).float().mean().item()
    assert kept == pytest.approx(0.3, abs=0.05)
    assert not torch.equal(quantizer(weight).codes, codes)
    codes = quantizer.eval()(weight).codes
    assert torch.equal(codes, codes.round())
    plain = UniformConfig(bits=4, mode="qat").weight_quantizer(site("weight"), 4)
    assert plain.keep_share == 0.0


def test_training_moves_weights_and_scales() -> None:
    x, index = inputs()
    config = UniformConfig(bits=2)
    prepared = nodebits.prepare(GCN(12, 8, 2, 3), config).train()
    nodebits.calibrate(prepared, x, index)
    before = {n: p.clone() for n, p in prepared.named_parameters()}
    optimizer = torch.optim.Adam(config.parameter_groups(prepared, 0.05))
    target = torch.randint(3, (20,))
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(x, index), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    moved = {n for n, p in prepared.named_parameters() if not torch.equal(p, before[n])}
    used = {n for n, p in prepared.named_parameters() if p.grad is not None}
    assert used <= moved and any("scale" in n for n in moved)


def test_parameter_groups() -> None:
    config = UniformConfig(bits=4, overrides={"convs.1.*": 1})
    prepared = nodebits.prepare(GCN(12, 8, 2, 3), config)
    groups = config.parameter_groups(prepared, 0.01, 5e-4, 1e-3)
    assert [g["lr"] for g in groups] == [0.01, 1e-3, 1e-2]
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0, 0.0]
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in prepared.parameters())
