"""MixQ: what sites choose among, that the price moves them, and that the file holds the choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import ARMAConv, GATConv, GCNConv, GINConv, RGCNConv

import nodebits
from nn.cases import assert_converts, edges, features
from nodebits.core.affine import Codes
from nodebits.core.errors import BitwidthError, ConfigError
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.jobs.quantize_config import JobConfig
from nodebits.methods import MixQConfig
from nodebits.methods.mixq import RelaxedQuantizer, RelaxedWeightQuantizer, WidthChoice
from nodebits.models import ModelSpec, build_model
from nodebits.tasks import GRAPH
from nodebits.train import FitConfig, find_recipe
from train.small import planted_graph

SPEC = ModelSpec("gcn", 12, 8, 2)
FIT = FitConfig(epochs=6, progress=False)


def trained(config: MixQConfig, fit: FitConfig = FIT) -> nn.Module:
    torch.manual_seed(0)
    model = nodebits.prepare(build_model(SPEC), config)
    nodebits.fit(model, planted_graph(), fit, method=config)
    return model


def choices(model: nn.Module) -> list[WidthChoice]:
    return [module for module in model.modules() if isinstance(module, WidthChoice)]


def packed_widths(module: nn.Module) -> Iterator[int]:
    for child in module.modules():
        if isinstance(child, PackedWeight | RowQuantizer) and child.bits is not None:
            yield child.bits


@pytest.mark.parametrize("inner", ["uniform", "degree-quant"])
@pytest.mark.parametrize("preset", ["default", "published"])
@pytest.mark.parametrize(
    "layer",
    [GCNConv(12, 5), GATConv(12, 3, heads=2), GINConv(nn.Sequential(nn.Linear(12, 4)))],
    ids=lambda layer: type(layer).__name__,
)
def test_packed_is_the_simulation(layer: nn.Module, preset: str, inner: str) -> None:
    config = MixQConfig(candidates=(1, 4, 8), preset=preset, inner=inner)
    assert_converts(layer, config, features(), edges())


def test_sites_and_what_is_given() -> None:
    config = MixQConfig(message_bits=3, overrides={"convs.1.lin.weight": 8})
    model = nodebits.prepare(build_model(SPEC), config)
    first, second = model.convs
    assert isinstance(first.lin.input, RelaxedQuantizer)
    assert isinstance(first.lin.quantized_weight, RelaxedWeightQuantizer)
    assert first.message.bits == 3 and not isinstance(first.message, RelaxedQuantizer)
    assert second.lin.quantized_weight.bits == 8
    assert len(choices(model)) == 3
    published = nodebits.prepare(build_model(SPEC), MixQConfig(preset="published"))
    kinds = ("input", "weight", "linear output", "message", "output")
    assert len(choices(published)) == 2 * len(kinds)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, (2, 4, 8)),
        ({"bits": 4}, (2, 4)),
        ({"bits": 1}, (1,)),
        ({"bits": 4, "candidates": [8, 3, 3]}, (3, 8)),
    ],
)
def test_candidates(options: dict[str, Any], widths: tuple[int, ...]) -> None:
    assert MixQConfig(**options).widths == widths


def test_an_open_site_passes_the_expectation_and_evaluation_the_likeliest() -> None:
    config = MixQConfig(candidates=(2, 8))
    site = nodebits.prepare(GCNConv(12, 5), config).lin.input
    x = features().relu()
    mixed = site.train()(x)
    assert isinstance(mixed, Codes) and mixed.bits is None
    shares = site.width.logits.softmax(0)
    values = [candidate.eval()(x).dequantize() for candidate in site.candidates]
    torch.testing.assert_close(mixed.codes, shares[0] * values[0] + shares[1] * values[1])
    for bits, logits in ((8, (0.0, 1.0)), (2, (1.0, 0.0))):
        site.width.logits.data = torch.tensor(logits)
        assert site.eval()(x).bits == bits == site.freeze().bits


def test_the_penalty_is_the_expected_share_of_the_float_size() -> None:
    config = MixQConfig(candidates=(2, 8), bit_lambda=0.5)
    model = nodebits.prepare(GCNConv(12, 5), config).train()
    assert float(config.penalty(model)) == 0.0
    model(features(), edges())
    for choice in choices(model):
        choice.logits.data = torch.zeros(2)
    assert float(config.penalty(model).detach()) == pytest.approx(0.5 * 5 / 32)
    config.penalty(model).backward()
    assert all(float(c.logits.grad[1]) > 0 > float(c.logits.grad[0]) for c in choices(model))


def test_widths_come_from_the_candidates_and_fall_with_lambda() -> None:
    means = []
    for price in (-100.0, 0.0, 100.0):
        model = trained(MixQConfig(candidates=(3, 6), bit_lambda=price, logit_lr=0.5))
        assert not any(choice.open for choice in choices(model))
        widths = list(packed_widths(nodebits.convert(model).module))
        assert set(widths) - {8} <= {3, 6}  # 8: attention_bits, of which a GCN has a site
        found = [choice.bits for choice in choices(model)]
        means.append(sum(found) / len(found))
    assert means[0] == 6.0 and means[2] == 3.0 and means[2] <= means[1] <= means[0]


def test_only_fixed_widths_are_selected() -> None:
    config = MixQConfig(settle=0.6)
    model = nodebits.prepare(build_model(SPEC), config)
    result = nodebits.fit(model, planted_graph(), FIT, method=config)
    assert result.best_epoch >= 0.6 * FIT.epochs
    assert config.admissible(model)


def test_with_fixed_widths_range_and_weights_start_anew() -> None:
    config = MixQConfig(candidates=(2, 8))
    layer = nodebits.prepare(GCNConv(12, 5), config).train()
    layer(features(), edges())
    weight = layer.lin.quantized_weight
    learned = weight.now.scale.detach().clone()
    parameter = layer.lin._parameters["weight"]
    first = parameter.detach().clone()
    weight.now.scale.data *= 3
    parameter.data += 1
    config.advance(layer, 0.9)
    assert bool(weight.width.stale)
    layer(features(), edges())
    assert torch.equal(parameter, first)
    torch.testing.assert_close(weight.now.scale.detach(), learned)
    weight.now.scale.data *= 3
    layer(features(), edges())
    assert not torch.equal(weight.now.scale.detach(), learned)


@pytest.mark.parametrize("kind", [ARMAConv, RGCNConv])
def test_parts_of_one_parameter_start_anew_within_a_step(kind: type[nn.Module]) -> None:
    config = MixQConfig(candidates=(2, 4, 8))
    layer = kind(8, 4, 2)
    model = nodebits.prepare(layer, config).train()
    index = edges(count=60)
    more = [] if kind is ARMAConv else [torch.arange(index.size(1)) % 2]
    before = layer.root_weight if kind is ARMAConv else layer.weight
    before, optimizer = before.detach().clone(), torch.optim.SGD(model.parameters(), 0.1)
    for progress in (0.1, 0.9):
        optimizer.zero_grad()
        out = model(features(cols=8), index, *more)
        (out.square().mean() + config.penalty(model)).backward()
        if progress < 0.5:
            optimizer.step()
        config.advance(model, progress)
    model(features(cols=8), index, *more).square().mean().backward()
    after = layer.root_weight if kind is ARMAConv else layer.weight
    assert torch.equal(after, before)


def test_every_parameter_is_in_one_group() -> None:
    config = MixQConfig(candidates=(1, 4))
    model = nodebits.prepare(build_model(SPEC), config)
    groups = config.parameter_groups(model, 0.01, 0.0, 0.001)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    one_bit, four_bits = model.convs[0].lin.quantized_weight.candidates
    assert rates[id(one_bit.scale)] == 0.01 and rates[id(four_bits.scale)] == 0.001


def test_a_file_holds_the_choice(tmp_path: Path) -> None:
    model = trained(MixQConfig(bit_lambda=1.0, logit_lr=0.2)).eval()
    graph = planted_graph()
    packed = nodebits.convert(model, SPEC)
    packed.save(tmp_path / "m.safetensors")
    again = nodebits.load(tmp_path / "m.safetensors")
    assert sorted(packed_widths(again.module)) == sorted(packed_widths(packed.module))
    with torch.no_grad():
        expected = model(graph.x, graph.edge_index)
    assert torch.equal(again.predict(graph.x, graph.edge_index), expected)


def test_a_checkpoint_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    config = MixQConfig(bit_lambda=1.0, logit_lr=0.2)
    straight = trained(config)
    torch.manual_seed(0)
    model = nodebits.prepare(build_model(SPEC), config)

    def stop(loop: Any) -> None:
        if loop.epoch == 3:
            raise RuntimeError("stopped")

    path = tmp_path / "c.checkpoint"
    fit = FIT.replace(checkpoint_seconds=0)
    with pytest.raises(RuntimeError, match="stopped"):
        nodebits.fit(model, planted_graph(), fit, method=config, checkpoint=path, on_epoch=stop)
    nodebits.fit(model, planted_graph(), fit, method=config, checkpoint=path)
    assert [c.bits for c in choices(model)] == [c.bits for c in choices(straight)]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"candidates": ()}, ConfigError, "candidates is empty"),
        ({"candidates": (4, 9)}, BitwidthError, "candidates is 9"),
        ({"candidates": 4}, ConfigError, "candidates is 4"),
        ({"settle": 1.0}, ConfigError, "settle is 1.0"),
        ({"logit_lr": 0.0}, ConfigError, "logit_lr is 0.0"),
        ({"bit_lambda": float("nan")}, ConfigError, "bit_lambda is nan"),
        ({"inner": "a2q"}, ConfigError, "inner must be one of uniform, degree-quant"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        MixQConfig(**options)


def test_the_published_training_is_short_and_starts_from_a_float_model() -> None:
    job = JobConfig(out=Path("x"), model="gcn", method="mixq", preset="published")
    fit = job.quantized_fit(find_recipe("gcn", "node"), 0, "node")
    assert job.warm and (fit.epochs, fit.schedule, fit.step_size) == (100, "step", 50)
    config = MixQConfig(preset="published")
    assert config.published_fit(FIT, GRAPH).epochs == FIT.epochs
    assert not JobConfig(out=Path("x"), method="degree-quant", preset="published").warm


@pytest.mark.parametrize(
    ("preset", "given", "rate", "until"),
    [("default", {}, 0.03, 0.2), ("published", {}, 0.01, 0.5),
     ("published", {"logit_lr": 0.2, "settle": 0.7}, 0.2, 0.7)],
)  # fmt: skip
def test_a_preset_has_its_own_rate_and_end_of_the_choice(
    preset: str, given: dict[str, float], rate: float, until: float
) -> None:
    config = MixQConfig(preset=preset, **given)
    model = nodebits.prepare(build_model(SPEC), config)
    assert config.parameter_groups(model, 0.1)[-1]["lr"] == rate
    config.advance(model, until - 0.01)
    assert all(choice.open for choice in choices(model))
    config.advance(model, until)
    assert not any(choice.open for choice in choices(model))
