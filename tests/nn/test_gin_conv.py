"""GINConv: one set of codes for the node and its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import MLP, GINConv

from nodebits.core.errors import NotCalibratedError
from nodebits.methods import DegreeQuantConfig, UniformConfig

from .cases import (
    BITS,
    NODES,
    TARGETS,
    WIDTH,
    adjacency_forms,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    edges,
    features,
    quantized,
    simple_edges,
)


def gin(**options: Any) -> GINConv:
    return GINConv(nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 5)), **options)


OPTIONS: list[dict[str, Any]] = [{}, {"eps": 0.3}, {"eps": 0.3, "train_eps": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float_sites(options: dict[str, Any]) -> None:
    assert_equals_float(gin(**options), features(), edges())
    assert_equals_float(GINConv(MLP([WIDTH, 8, 5], norm=None), **options), features(), edges())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bipartite(options: dict[str, Any]) -> None:
    index = edges(NODES, TARGETS)
    pair = (features(), features(TARGETS))
    assert_equals_float(gin(**options), pair, index)
    alone = (features(), None)
    prepared = quantized(gin(**options), UniformConfig(bits=4), pair, index)
    assert prepared(alone, index, size=(NODES, TARGETS)).shape == (TARGETS, 5)
    assert_converts(gin(**options), UniformConfig(bits=4), pair, index)


def test_sources_without_targets() -> None:
    layer, index = gin(), edges(NODES, TARGETS)
    assert_equals_float(layer, (features(), None), index, size=(NODES, TARGETS))


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
def test_adjacency_forms(form: str) -> None:
    assert_equals_float(gin(), features(), adjacency_forms(simple_edges())[form])


def test_no_edges() -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert_equals_float(gin(), features(), none)
    assert_converts(gin(), UniformConfig(bits=2), features(), none)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("train_eps", [False, True])
def test_packed_is_the_simulation(bits: int, train_eps: bool) -> None:
    inputs = (features(), edges())
    for config in (
        UniformConfig(bits=bits),
        UniformConfig(bits=bits, mode="ptq", output_bits=6),
        UniformConfig(bits=bits, preset="published"),
        DegreeQuantConfig(bits=bits),
        DegreeQuantConfig(bits=bits, preset="published"),
        UniformConfig(bits=bits, overrides={"message": 3, "nn.2.*": 5, "nn.0.weight": 7}),
        UniformConfig(bits=bits, overrides={"message": 32}),
        UniformConfig(bits=bits, overrides={"nn.0.input": 32, "nn.2.weight": 32}),
    ):
        assert_converts(gin(eps=0.25, train_eps=train_eps), config, *inputs)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("train_eps", [False, True])
def test_states(bits: int, train_eps: bool) -> None:
    layer = gin(eps=0.5, train_eps=train_eps)
    assert_state_survives(layer, UniformConfig(bits=bits), features(), edges())


def test_reset_restores_epsilon() -> None:
    x, index = features(), edges()
    prepared = quantized(gin(eps=0.5, train_eps=True), UniformConfig(bits=4), x, index)
    with torch.no_grad():
        prepared.eps.fill_(9.0)  # type: ignore[union-attr, operator]
    weight = prepared.get_parameter("nn.0.weight").clone()
    prepared.reset_parameters()  # type: ignore[operator]
    assert prepared.eps.item() == 0.5  # type: ignore[union-attr, operator]
    assert not torch.equal(prepared.get_parameter("nn.0.weight"), weight)
    with pytest.raises(NotCalibratedError):
        prepared(x, index)


def test_constant_sums_follow_epsilon_and_features() -> None:
    x, index = features(), edges()
    prepared = quantized(gin(), UniformConfig(bits=8, mode="ptq"), x, index)
    with torch.no_grad():
        first = prepared(x, index)
        assert torch.equal(prepared(x, index), first)
        prepared.eps.fill_(1.0)  # type: ignore[union-attr, operator]
        second = prepared(x, index)
        assert not torch.equal(second, first)
        x.mul_(0.5)
        assert not torch.equal(prepared(x, index), second)
        assert torch.equal(prepared(x, index), prepared(x.clone(), index))
