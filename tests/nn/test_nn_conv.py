"""NNConv: the last map of its network leaves the sum, which is one of outer products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, NNConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, ShapeError
from nodebits.graph import Graph
from nodebits.methods import A2QConfig, MixQConfig, SGQuantConfig, UniformConfig
from nodebits.nn.nn_conv import QuantNNConv
from nodebits.nn.propagate.layer import QuantMessagePassing

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
)

DIM, OUT = 3, 5


def two_maps(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, size)))


LAYERS: dict[str, tuple[Callable[[int], nn.Module], dict[str, Any]]] = {
    "one map": (lambda size: nn.Linear(DIM, size), {}),
    "without bias": (lambda size: nn.Linear(DIM, size, bias=False), {"bias": False}),
    "two maps, mean": (two_maps, {"aggr": "mean"}),
    "MLP without root": (lambda size: MLP([DIM, 6, size]), {"root_weight": False}),
    "MLP of one map": (lambda size: MLP([DIM, size]), {"aggr": "sum"}),
}
each = pytest.mark.parametrize("name", LAYERS)


def made(name: str, width: Any = WIDTH) -> nn.Module:
    network, options = LAYERS[name]
    first = width if isinstance(width, int) else width[0]
    return NNConv(width, OUT, network(first * OUT), **options)


def inputs(x: Any = None, index: Tensor | None = None) -> tuple[Any, ...]:
    x, index = features() if x is None else x, edges() if index is None else index
    return x, index, features(index.size(1), DIM)


def pair() -> tuple[Any, ...]:
    return inputs((features(), features(TARGETS, 4)), edges(NODES, TARGETS))


@each
def test_float_sites(name: str) -> None:
    assert_equals_float(made(name), *inputs())
    assert_equals_float(made(name, (WIDTH, 4)), *pair())
    x, index, attr = inputs(index=edges(NODES, TARGETS))
    assert_equals_float(made(name), (x, None), index, attr, size=(NODES, TARGETS))


@pytest.mark.parametrize("bits", BITS)
@each
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    given = inputs()
    for config in configs(bits, {"message*": 3}, {"message*": 32}, {"*att_weight_edge": 32}):
        assert_converts(made(name), config, *given)
    assert_converts(made(name, (WIDTH, 4)), UniformConfig(bits=bits), *pair())


@pytest.mark.parametrize("config", [A2QConfig(), SGQuantConfig(bits=4), MixQConfig()])
def test_every_method(config: Any) -> None:
    assert_converts(made("two maps, mean"), config, *inputs())


@each
def test_eight_bits_are_close_and_the_plan_is_whole(name: str) -> None:
    layer, given = made(name).eval(), inputs()
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8, mode="ptq"), *given))
    expected, found = layer(*given).detach(), packed.predict(*given)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    steps = [step["op"] for step in packed.plan(*given).about["steps"]]
    assert "fused_outer_sum" in steps and "module" not in steps
    assert torch.equal(packed.predict(*given), found)


def test_columns_of_any_size_are_alike() -> None:
    """The sums of columns that are large or small pass one range, since each has a gain."""
    size = torch.tensor([1.0, 100.0, 0.02, 0.0])
    layer = NNConv(WIDTH, OUT, nn.Linear(4, WIDTH * OUT)).eval()
    with torch.no_grad():
        layer.nn.weight /= torch.where(size > 0, size, 1.0)
    x, index, _ = inputs()
    attr = features(index.size(1), 4) * size
    prepared = quantized(layer, UniformConfig(bits=8, mode="ptq"), x, index, attr)
    expected = layer(x, index, attr).detach()
    error = (nodebits.convert(prepared).predict(x, index, attr) - expected).norm()
    assert float(error / expected.norm()) < 0.02


def test_state_and_a_second_calibration() -> None:
    given = inputs()
    assert_state_survives(made("two maps, mean"), UniformConfig(bits=4), *given)
    prepared = quantized(made("one map"), UniformConfig(bits=4), *given)
    gain = prepared.nn.gain.clone()
    assert bool((gain > 0).all())
    nodebits.calibrate(prepared, given[0], given[1], given[2] * 50)
    assert torch.equal(prepared.nn.gain, gain)
    prepared.nn.reset_parameters()
    assert not bool(prepared.nn.gain.any())


def test_what_has_no_such_form_runs_on_tiles() -> None:
    size = WIDTH * OUT
    ends = nn.Sequential(nn.Linear(DIM, size), nn.ReLU())
    hooked = nn.Linear(DIM, size)
    hooked.register_forward_hook(lambda *_: None)
    wide = nn.Linear(70_000 // WIDTH, size)
    networks = (ends, hooked, wide, MLP([DIM, 6, size], plain_last=False), nn.Bilinear(1, 1, 1))
    layers = [NNConv(WIDTH, OUT, net) for net in networks]
    layers.append(NNConv(WIDTH, OUT, nn.Linear(DIM, size), aggr="max"))
    for layer in layers:
        prepared = nodebits.prepare(copy.deepcopy(layer), UniformConfig(bits=8))
        assert isinstance(prepared, QuantMessagePassing)
    layer = made("one map").eval()
    prepared = nodebits.prepare(layer, UniformConfig(bits=8))
    assert isinstance(prepared, QuantNNConv)
    found = nodebits.check(layer, *inputs())
    assert "maps by node" in str(found)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    x, index, attr = inputs()
    prepared = quantized(made("one map"), UniformConfig(bits=8), x, index, attr)
    for bad in (None, attr[1:], features(index.size(1), DIM + 1)):
        with pytest.raises(ShapeError):
            prepared(x, index, bad)
    monkeypatch.setattr(Graph, "max_degree", 40_000)
    with pytest.raises(AccumulatorOverflowError, match="NNConv"):
        prepared(x, index, attr)
