"""Targets that are not the sources have ranges of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GINConv, GraphConv, SAGEConv

import nodebits
from nodebits.core.errors import NotCalibratedError

from .cases import WIDTH, assert_converts, edges, features

SOURCES, TARGETS = 40, 10
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
LAYERS = {
    "gat": lambda: GATConv((WIDTH, WIDTH), 4, heads=2, add_self_loops=False),
    "gat, one map": lambda: GATConv(WIDTH, 4, heads=2, add_self_loops=False),
    "gat, loops": lambda: GATConv(WIDTH, 4, heads=2, residual=True),
    "gin": lambda: GINConv(nn.Linear(WIDTH, 5)),
    "sage": lambda: SAGEConv((WIDTH, WIDTH), 5),
    "graph": lambda: GraphConv((WIDTH, WIDTH), 5),
}
CONFIGS = [
    PTQ,
    nodebits.UniformConfig(bits=4),
    nodebits.UniformConfig(bits=4, preset="published"),
    nodebits.DegreeQuantConfig(bits=4),
    nodebits.SGQuantConfig(bits=4),
    nodebits.UniformConfig(bits=8, overrides={"message*": 32}),
]


@pytest.mark.parametrize("ratio", [1.0, 5.0, 200.0, 0.01])
@pytest.mark.parametrize("name", LAYERS)
def test_both_ends_keep_their_precision(name: str, ratio: float) -> None:
    pair = (features(SOURCES), features(TARGETS) * ratio)
    index = edges(SOURCES, TARGETS)
    layer = LAYERS[name]().eval()
    expected = layer(pair, index).detach()
    found = assert_converts(layer, PTQ, pair, index).predict(pair, index)
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", LAYERS)
def test_packed_is_the_simulation(name: str, config: nodebits.QuantConfig, tmp_path: Path) -> None:
    pair = (features(SOURCES), features(TARGETS) * 3)
    index, layer = edges(SOURCES, TARGETS), LAYERS[name]()
    packed = assert_converts(layer, config, pair, index)
    packed.save(tmp_path / "model.safetensors")
    again = nodebits.load(tmp_path / "model.safetensors", model=layer)
    assert torch.equal(again.predict(pair, index), packed.predict(pair, index))


def test_attention_follows_ranges_of_later_batches() -> None:
    """The attention vectors hold the message's scale, which grows while it is observed."""
    x, index, layer = features(), edges(), GATConv(WIDTH, 4, heads=2)
    prepared = nodebits.prepare(layer.eval(), PTQ)
    for factor in (0.01, 1.0):
        nodebits.calibrate(prepared, x * factor, index)
    expected = layer(x, index).detach()
    found = nodebits.convert(prepared).predict(x, index)
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("name", ["gat, one map", "gin"])
def test_targets_that_calibration_never_saw(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]()
    prepared = nodebits.prepare(layer, PTQ)
    nodebits.calibrate(prepared, features(), edges())
    packed = nodebits.convert(prepared)
    packed.save(tmp_path / "model.safetensors")
    pair, index = (features(SOURCES), features(TARGETS)), edges(SOURCES, TARGETS)
    for model in (packed, nodebits.load(tmp_path / "model.safetensors", model=layer)):
        with pytest.raises(NotCalibratedError, match=r"_dst.*pairs"):
            model.predict(pair, index)


def test_ordinary_attention_pays_nothing_for_targets() -> None:
    packed = assert_converts(GATConv(WIDTH, 4, heads=2), PTQ, features(), edges())
    assert not any("att_weight_dst" in name for name in packed.state_dict())
    account = packed.account(features(), edges())
    assert not any(site.site.endswith("_dst") for site in [*account.sites, *account.weights])
