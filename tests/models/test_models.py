"""Named models: built, prepared, converted, and their mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, SAGEConv, Sequential

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.methods import DegreeQuantConfig, UniformConfig
from nodebits.models import ModelSpec, build_model
from nodebits.nn import supported_layers

from ..nn.cases import (
    FLOAT,
    NODES,
    WIDTH,
    assert_converts,
    edges,
    features,
    quantized,
)

SPEC = ModelSpec("gcn", WIDTH, 8, 3, heads=2)
# Every model with the usual options is in contracts/test_models.py.
SPECS = [
    replace(SPEC, name="deepgcn", norm="batch_norm", residual=False),
    replace(SPEC, name="gcn", task="graph", pool="add"),
    replace(SPEC, name="gcn", num_layers=3),
]


def model_inputs(spec: ModelSpec) -> tuple[Any, ...]:
    inputs: tuple[Any, ...] = (features(), edges())
    return (*inputs, torch.arange(NODES) // 12) if spec.task == "graph" else inputs


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.name}-{s.task}-{s.pool}-{s.num_layers}")
def test_float_sites_and_packed_form(spec: ModelSpec) -> None:
    model = build_model(spec).eval()
    inputs = model_inputs(spec)
    expected = model(*inputs)
    assert expected.shape == (2 if spec.task == "graph" else NODES, 3)
    prepared = nodebits.prepare(model, FLOAT)
    torch.testing.assert_close(prepared(*inputs), expected, atol=1e-5, rtol=1e-5)
    for config in (UniformConfig(bits=8), DegreeQuantConfig(bits=4), UniformConfig(bits=1)):
        assert_converts(model, config, *inputs)


def test_what_is_no_spec() -> None:
    for broken in ({"name": "gcn"}, {**SPEC.to_json(), "depth": 3}):
        with pytest.raises(ConfigError, match="not a model description"):
            ModelSpec.from_json(broken)


def test_heads_that_do_not_share_the_width() -> None:
    with pytest.raises(ConfigError, match="hidden_channels is 8: GAT needs a multiple of its 3"):
        build_model(replace(SPEC, name="gat", heads=3))


def test_supported_layers() -> None:
    assert {"torch.Linear", "torch_geometric.GATConv"} <= set(supported_layers())


def test_models_of_users() -> None:
    model = Sequential(
        "x, edge_index",
        [
            (GCNConv(WIDTH, 8), "x, edge_index -> x"),
            nn.ReLU(),
            (SAGEConv(8, 6), "x, edge_index -> x"),
            nn.Linear(6, 3),
        ],
    )
    config = UniformConfig(bits=4, overrides={"*.message": 2, "*.weight": 3})
    packed = assert_converts(model, config, features(), edges())
    assert len(packed.layer_paths()) == 6
    assert_state_survives_model(model, config)


def assert_state_survives_model(model: nn.Module, config: UniformConfig) -> None:
    x, index = features(), edges()
    prepared = quantized(model, config, x, index)
    fresh = nodebits.prepare(model, config).eval()
    fresh.load_state_dict(prepared.state_dict())
    assert torch.equal(fresh(x, index), prepared(x, index))
