"""Linear maps: the float twin, the packed twin, shapes and states."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import Linear as PyGLinear

import nodebits
from nodebits.core.errors import NotCalibratedError, ShapeError, UnsupportedLayerWarning
from nodebits.engine.sites import FloatRows
from nodebits.methods import DegreeQuantConfig, UniformConfig
from nodebits.nn.linear import QuantLinear

from .cases import BITS, assert_converts, assert_equals_float, assert_state_survives, features

LAYERS = {
    "torch": lambda: nn.Linear(12, 5),
    "torch, no bias": lambda: nn.Linear(12, 5, bias=False),
    "PyG": lambda: PyGLinear(12, 5, weight_initializer="glorot"),
    "wide": lambda: nn.Linear(300, 3),  # raw features: one scale per row
}


@pytest.mark.parametrize("name", LAYERS)
def test_float_sites(name: str) -> None:
    layer = LAYERS[name]()
    cols = 300 if name == "wide" else 12
    assert_equals_float(layer, features(7, cols))
    assert_equals_float(layer, torch.randn(2, 3, cols))
    assert_equals_float(layer, torch.randn(cols))
    assert_equals_float(layer, torch.randn(0, cols))
    sparse = torch.zeros(20, cols)
    sparse[3, 1] = 2.0
    layer_out, prepared = layer(sparse), nodebits.prepare(layer, UniformConfig(bits=32))
    torch.testing.assert_close(prepared(sparse), layer_out)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["both", "positive", "sparse"])
def test_packed_is_the_simulation(name: str, bits: int, kind: str) -> None:
    x = features(9, 300 if name == "wide" else 12)
    if kind != "both":
        x = x.abs()
    if kind == "sparse":
        x *= torch.rand(x.shape) < 0.05
    layer = LAYERS[name]()
    for config in (
        UniformConfig(bits=bits),
        UniformConfig(bits=bits, mode="ptq"),
        UniformConfig(bits=bits, preset="published"),
        DegreeQuantConfig(bits=bits, ranges="percentile"),
        UniformConfig(bits=bits, weight_bits=3, output_bits=5),
        UniformConfig(bits=bits, input_bits=32),
        UniformConfig(bits=bits, weight_bits=32),
    ):
        packed = assert_converts(layer, config, x)
        with torch.no_grad():
            stacked = packed.module(torch.stack([x, x]))
            if config.weight_bits != 32 and not isinstance(packed.module.input, FloatRows):
                assert torch.equal(stacked[1], packed.module(x))
            else:  # a float product may round differently for another number of rows
                torch.testing.assert_close(stacked[1], packed.module(x))


@pytest.mark.parametrize("bits", BITS)
def test_states(bits: int) -> None:
    for config in (UniformConfig(bits=bits), UniformConfig(bits=bits, mode="ptq")):
        assert_state_survives(nn.Linear(12, 5), config, features())


def test_state_dict_after_conversion() -> None:
    x = features()
    packed = assert_converts(nn.Linear(12, 5), UniformConfig(bits=4), x)
    state = packed.state_dict()
    assert state["module.quantized_weight.packed"].shape == (5, 6)
    assert "module.weight" not in state
    floats = {n for n, t in state.items() if t.is_floating_point()}
    assert floats == {
        "module.bias",
        "module.input.scale",
        "module.input.zero_point",
        "module.quantized_weight.scale",
        "module.quantized_weight.col_sum",
    }
    assert not any(p.requires_grad for p in packed.parameters())


def test_eight_bits_are_close_to_float() -> None:
    x, layer = features(200), nn.Linear(12, 5)
    packed = assert_converts(layer, UniformConfig(bits=8), x)
    assert (packed.module(x) - layer(x)).abs().max() < 0.05


def test_reset_draws_anew_and_forgets() -> None:
    x = features()
    prepared = nodebits.prepare(PyGLinear(12, 5), UniformConfig(bits=4)).eval()
    nodebits.calibrate(prepared, x)
    assert isinstance(prepared, QuantLinear) and prepared.weight is not None
    before = prepared.weight.clone()
    prepared.reset_parameters()
    assert not torch.equal(prepared.weight, before)
    with pytest.raises(NotCalibratedError, match="calibrate"):
        prepared(x)


def test_wrong_width() -> None:
    prepared = nodebits.prepare(nn.Linear(12, 5), UniformConfig(bits=4))
    with pytest.raises(ShapeError, match=r"11\], expected rows of 12"):
        prepared(features(cols=11))


def test_lazy_layers_are_left() -> None:
    for lazy in (PyGLinear(-1, 5), nn.LazyLinear(5)):
        model = nn.Sequential(nn.Linear(3, 3), lazy)
        with pytest.warns(UnsupportedLayerWarning, match=r"'1' \(\w*Linear\).*lazy"):
            prepared = nodebits.prepare(model, UniformConfig(bits=4))
        assert type(prepared.get_submodule("1")) is type(lazy)


def test_sequential_converts() -> None:
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    packed = assert_converts(model, UniformConfig(bits=4), features())
    assert packed.layer_paths() == ["0", "2"]
