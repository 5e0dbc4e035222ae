"""Layers of several steps: PyG's (or the definition's) result in float, packed bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCN2Conv, TAGConv

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.methods import UniformConfig
from nodebits.nn.dagnn import DAGNNConv
from nodebits.nn.propagate.layer import QuantMessagePassing

from .cases import (
    BITS,
    WIDTH,
    assert_converts,
    assert_equals_float,
    assert_fused_steps_are_the_steps,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
)


def layers() -> dict[str, tuple[nn.Module, Tensor]]:
    return {
        "appnp": (APPNP(5, 0.1), edges()),
        "appnp without loops": (APPNP(3, 0.2, add_self_loops=False), edges()),
        "appnp unnormalised": (APPNP(2, 0.5, normalize=False), edges()),
        "dagnn": (DAGNNConv(WIDTH, 4), edges()),
    }


@pytest.mark.parametrize("name", layers())
def test_float_sites(name: str) -> None:
    layer, index = layers()[name]
    assert_equals_float(layer, features(), index)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"theta": 0.5, "layer": 3}, {"shared_weights": False}])
def test_gcn2(options: dict[str, Any], weighted: bool) -> None:
    index = edges()
    weight = (torch.rand(index.size(1)) + 0.1,) if weighted else ()
    layer = GCN2Conv(WIDTH, 0.1, **options)
    assert_equals_float(layer, features(), features(), index, *weight)
    for bits in BITS:
        assert_converts(layer, UniformConfig(bits=bits), features(), features(), index, *weight)
    assert_state_survives(layer, UniformConfig(bits=4), features(), features(), index)


def test_appnp_edge_weights() -> None:
    index = edges()
    weight = torch.rand(index.size(1)) + 0.1
    assert_equals_float(APPNP(4, 0.1), features(), index, weight)
    assert_converts(APPNP(4, 0.1), UniformConfig(bits=4), features(), index, weight)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", layers())
def test_packed_is_the_simulation(name: str, bits: int) -> None:
    layer, index = layers()[name]
    widths = {"message_1": 3}
    for config in configs(bits, widths, {"message_0": 32}):
        assert_converts(layer, config, features(), index)


@pytest.mark.parametrize("name", layers())
def test_states(name: str) -> None:
    layer, index = layers()[name]
    assert_state_survives(layer, UniformConfig(bits=4), features(), index)


def test_calibrated_steps_have_a_range_per_column() -> None:
    x, index = features() * torch.logspace(-2, 1, WIDTH), edges()
    prepared = nodebits.prepare(APPNP(3, 0.1), UniformConfig(bits=8, mode="ptq")).eval()
    nodebits.calibrate(prepared, x, index)
    assert {s.granularity for s in nodebits.sites(prepared) if "message" in s.path} == {"column"}
    exact = APPNP(3, 0.1)(x, index)[:, 0]
    gap = nodebits.convert(prepared).predict(x, index)[:, 0] - exact
    assert float(gap.norm() / exact.norm()) < 0.03


def test_steps_at_two_widths_share_a_range() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.prop = nn.Linear(WIDTH, 4), APPNP(2, 0.1)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            made: Tensor = self.prop(self.lin(self.prop(x, edge_index)), edge_index)
            return made

    model = Twice().eval()
    inputs = (features(), edges())
    prepared = nodebits.prepare(model, UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, *inputs)
    with torch.no_grad():
        exact, expected = model(*inputs), prepared(*inputs)
    assert torch.equal(nodebits.convert(prepared).predict(*inputs), expected)
    assert float((expected - exact).norm() / exact.norm()) < 0.05


def test_no_steps() -> None:
    with pytest.raises(ConfigError, match="has 0 steps"):
        nodebits.prepare(APPNP(0, 0.1), UniformConfig())


def test_edge_dropout_runs_messages_of_its_own() -> None:
    """The steps in one operator cannot drop edges; PyG's own propagation can."""
    model = nn.ModuleDict({"lin": nn.Linear(3, 3), "prop": APPNP(2, 0.1, dropout=0.5)})
    prepared = nodebits.prepare(model, UniformConfig())
    assert isinstance(prepared["prop"], APPNP)
    assert isinstance(prepared["prop"], QuantMessagePassing)


def test_fused_steps_are_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_fused_steps_are_the_steps(APPNP(5, 0.1), edges(), monkeypatch)


def test_input_packed_ahead_is_refused() -> None:
    x, index = features(), edges()
    for layer in (APPNP(2, 0.1), TAGConv(x.size(1), 2)):  # the second has maps, of its powers
        packed = nodebits.convert(quantized(layer, UniformConfig(bits=4), x, index))
        with pytest.raises(ConfigError, match="also read their input in float"):
            packed.pack_input(x)
