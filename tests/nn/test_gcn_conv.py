"""GCNConv: PyG's layer with float sites, its own packed form with integer ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import GCNConv

import nodebits
from nodebits.core.errors import NotCalibratedError
from nodebits.methods import DegreeQuantConfig, UniformConfig

from .cases import (
    BITS,
    WIDTH,
    adjacency_forms,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
    simple_edges,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"add_self_loops": False},
    {"normalize": False},
    {"cached": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_float_sites(options: dict[str, Any], weighted: bool) -> None:
    index = edges()
    weight = (torch.rand(index.size(1)) + 0.1,) if weighted else ()
    assert_equals_float(GCNConv(WIDTH, 5, **options), features(), index, *weight)


def test_improved() -> None:
    index = edges()
    weight = torch.rand(index.size(1)) + 0.1
    assert_equals_float(GCNConv(WIDTH, 5, improved=True), features(), index, weight)
    # A sparse matrix always has values.
    forms = adjacency_forms(simple_edges())
    assert_equals_float(GCNConv(WIDTH, 5, improved=True), features(), forms["csr"])


def test_improved_without_weights() -> None:
    assert_equals_float(GCNConv(WIDTH, 5, improved=True), features(), edges())


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
def test_adjacency_forms(form: str) -> None:
    index = simple_edges()
    adjacency = adjacency_forms(index)[form]
    assert_equals_float(GCNConv(WIDTH, 5), features(), adjacency)
    x, layer = features(), GCNConv(WIDTH, 5)
    prepared = quantized(layer, UniformConfig(bits=4), x, index)
    assert torch.equal(prepared(x, adjacency), prepared(x, index))


def test_no_edges() -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert_equals_float(GCNConv(WIDTH, 5), features(), none)
    assert_equals_float(GCNConv(WIDTH, 5, add_self_loops=False), features(), none)
    assert_converts(GCNConv(WIDTH, 5), UniformConfig(bits=4), features(), none)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("weights", ["none", "positive", "signed", "loops of 2"])
def test_packed_is_the_simulation(bits: int, weights: str) -> None:
    index = edges()
    inputs: tuple[Any, ...] = (features(), index)
    # Signed weights make degrees that have no square root.
    layer = GCNConv(WIDTH, 5, improved=weights == "loops of 2", normalize=weights != "signed")
    if weights in ("positive", "signed"):
        weight = torch.rand(index.size(1)) - (0.5 if weights == "signed" else 0)
        inputs = (*inputs, weight)
    own = {"message": 3, "lin.*": 5, "attention": 7}
    floats = [{name: 32} for name in ("message", "attention", "lin.weight")]
    for config in configs(bits, own, *floats):
        assert_converts(layer, config, *inputs)


@pytest.mark.parametrize("bits", BITS)
def test_states(bits: int) -> None:
    assert_state_survives(GCNConv(WIDTH, 5), UniformConfig(bits=bits), features(), edges())
    config = DegreeQuantConfig(bits=bits, preset="published")
    assert_state_survives(GCNConv(WIDTH, 5), config, features(), edges())


def test_reset_forgets() -> None:
    x, index = features(), edges()
    prepared = quantized(GCNConv(WIDTH, 5), UniformConfig(bits=4), x, index)
    prepared.reset_parameters()  # type: ignore[operator]
    with pytest.raises(NotCalibratedError):
        prepared(x, index)


def test_weights_that_training_never_saw_need_no_range() -> None:
    x, index = features(), edges()
    layer = GCNConv(WIDTH, 5)
    packed = nodebits.convert(quantized(layer, UniformConfig(bits=8), x, index))
    weight = torch.rand(index.size(1)) + 0.5
    expected = layer(x, index, weight).detach()
    found = packed.predict(x, index, weight)
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_edge_order_does_not_change_a_bit() -> None:
    x, index = features(), edges()
    packed = nodebits.convert(quantized(GCNConv(WIDTH, 5), UniformConfig(bits=4), x, index))
    shuffled = index[:, torch.randperm(index.size(1))]
    assert torch.equal(packed.predict(x, shuffled), packed.predict(x, index))
