"""calibrate: one call on a union and several calls are the same, and trained ranges are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.methods import make_config, method_names
from nodebits.methods.base import QuantConfig

NODES = 24
EDGES = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
CONFIGS = [(name, preset) for name in method_names() for preset in ("default", "published")]
# A2Q begins with 4 bits where a node's range allows; see test_published_sgquant_only_clips.
LIMITS = {"a2q-default": 0.1, "a2q-published": 0.1, "sgquant-published": 1.0}


class Net(nn.Module):
    """One convolution on raw features."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = GCNConv(channels, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


def config_of(method: str, preset: str) -> QuantConfig:
    options: dict[str, Any] = {} if method == "a2q" else {"attention_bits": 8}
    return make_config(method, bits=8, preset=preset, **options)


def error(model: nn.Module, prepared: nn.Module, x: Tensor) -> float:
    want = model(x, EDGES).detach()
    found = nodebits.convert(prepared).predict(x, EDGES)
    return float((found - want).norm() / want.norm())


@pytest.mark.parametrize(("method", "preset"), CONFIGS)
@pytest.mark.parametrize("channels", [8, 300])
def test_several_calls_are_one_on_the_union(method: str, preset: str, channels: int) -> None:
    model = Net(channels).eval()
    calls = [
        torch.rand(NODES, channels),
        torch.randn(NODES, channels),
        torch.zeros(NODES, channels),
    ]
    found = []
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        prepared = nodebits.prepare(model, config_of(method, preset))
        for i in order:
            nodebits.calibrate(prepared, calls[i], EDGES)
        found.append(error(model, prepared, calls[1]))
    assert max(found) < LIMITS.get(f"{method}-{preset}", 0.05)
    assert max(found) < 1.3 * min(found) + 0.005


@pytest.mark.parametrize(("method", "preset"), CONFIGS)
@pytest.mark.parametrize("first", ["positive", "zero"])
def test_training_makes_up_for_its_first_batch(method: str, preset: str, first: str) -> None:
    x = torch.randn(NODES, 8)
    model = Net()
    prepared = nodebits.prepare(model, config_of(method, preset)).train()
    prepared(x.abs() if first == "positive" else torch.zeros_like(x), EDGES).sum().backward()
    for _ in range(30):
        prepared(x, EDGES)
    assert error(model.eval(), prepared.eval(), x) < (
        0.7 if (method, preset) == ("sgquant", "published") else 0.25
    )


def test_published_sgquant_only_clips() -> None:
    """Its range is the mean of the rows' extremes, beyond which half of the rows' largest lie."""
    model = Net().eval()
    x, other = torch.randn(NODES, 8), torch.rand(NODES, 8)
    prepared = nodebits.prepare(model, config_of("sgquant", "published"))
    nodebits.calibrate(prepared, [(x, EDGES), (other, EDGES)])
    packed = nodebits.convert(prepared)
    limits = {}
    for path, site in packed.row_sites().items():
        if path != "conv.attention":
            low = float(-site.zero_point * site.scale)
            limits[path] = (low, low + 255 * float(site.scale))
    rows = torch.cat([x, other])
    wanted = (float(rows.amin(1).mean()), float(rows.amax(1).mean()))
    assert limits["conv.lin.input"] == pytest.approx(wanted, rel=1e-5)
    h = model.conv.lin(x.clamp(*limits["conv.lin.input"])).clamp(*limits["conv.lin.output"])
    h = (h * 0.5**0.5).clamp(*limits["conv.message"])  # every node has one neighbour and its loop
    h = (h + h.roll(1, 0)) * 0.5**0.5 + model.conv.bias
    h = h.clamp(*limits["conv.output"]).detach()
    found = packed.predict(x, EDGES)
    assert float((found - h).norm() / h.norm()) < 0.05


@pytest.mark.parametrize(("method", "preset"), CONFIGS)
def test_zeros_alone_are_legal(method: str, preset: str) -> None:
    prepared = nodebits.prepare(Net().eval(), config_of(method, preset))
    zeros = torch.zeros(NODES, 8)
    nodebits.calibrate(prepared, zeros, EDGES)
    packed = nodebits.convert(prepared)
    assert torch.equal(packed.predict(zeros, EDGES), prepared.eval()(zeros, EDGES))
    assert float(packed.predict(zeros, EDGES).abs().max()) < 1e-3


def forms(x: Tensor, y: Tensor) -> list[Any]:
    return [
        [(x, EDGES), (y, EDGES)],
        [{"x": x, "edge_index": EDGES}, {"x": y, "edge_index": EDGES}],
        (Data(x=v, edge_index=EDGES) for v in (x, y)),
        ((x, EDGES), (y, EDGES)),
    ]


@pytest.mark.parametrize("form", range(4))
def test_graphs_in_one_call(form: int) -> None:
    model, x, y = Net().eval(), torch.rand(NODES, 8), torch.randn(NODES, 8)
    one = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    several = nodebits.prepare(model, nodebits.UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(one, forms(x, y)[form])
    nodebits.calibrate(several, x, EDGES)
    nodebits.calibrate(several, y, EDGES)
    with torch.no_grad():
        assert torch.equal(one(y, EDGES), several(y, EDGES))


@pytest.mark.parametrize(("graphs", "text"), [([], "empty"), ([torch.ones(2)], "graph 0.*Tensor")])
def test_what_is_no_list_of_graphs(graphs: list[Any], text: str) -> None:
    prepared = nodebits.prepare(Net(), nodebits.UniformConfig(bits=8))
    with pytest.raises(ConfigError, match=text):
        nodebits.calibrate(prepared, graphs)


def test_modes_of_all_modules_are_kept() -> None:
    prepared = nodebits.prepare(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), make_config("uniform")
    )
    prepared.train()
    prepared[1].eval()  # type: ignore[index]
    nodebits.calibrate(prepared, torch.randn(6, 4))
    assert prepared.training and not prepared[1].training  # type: ignore[index]


@pytest.mark.parametrize("method", ["uniform", "degree-quant", "smp", "a2q", "sgquant"])
def test_a_trained_range_is_widened_only_where_it_does_not_fit(method: str) -> None:
    model, x = Net(), torch.randn(NODES, 8)
    prepared = nodebits.prepare(model, make_config(method, bits=8)).train()
    for _ in range(3):
        prepared(x, EDGES)
    before = error(model.eval(), prepared.eval(), x)
    nodebits.calibrate(prepared, x, EDGES)
    assert error(model, prepared, x) == pytest.approx(before, rel=0.2, abs=1e-3)
    nodebits.calibrate(prepared, 20 * x, EDGES)
    assert error(model, prepared, 20 * x) < 0.35


@pytest.mark.parametrize("method", method_names())
def test_a_checkpoint_keeps_what_was_calibrated(method: str) -> None:
    model, x = Net().eval(), torch.randn(NODES, 8)
    prepared = nodebits.prepare(model, make_config(method, bits=4))
    again = nodebits.prepare(model, make_config(method, bits=4))
    nodebits.calibrate(prepared, x.abs(), EDGES)
    nodebits.calibrate(prepared, x, EDGES)
    again.load_state_dict(prepared.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x, EDGES), prepared.eval()(x, EDGES))


@pytest.mark.parametrize("method", ["uniform", "degree-quant", "smp", "sgquant"])
@pytest.mark.parametrize("training", [False, True])
def test_one_outlier_leaves_the_other_rows_apart(method: str, training: bool) -> None:
    torch.manual_seed(0)
    x = torch.rand(NODES, 8)
    x[3] *= 1e5
    linear = nn.Linear(8, 4)
    prepared = nodebits.prepare(linear, make_config(method, bits=8))
    if training:
        prepared.train()(x)
    else:
        nodebits.calibrate(prepared, x)
    rows = prepared.eval()(x)
    assert rows.detach().unique(dim=0).size(0) == NODES
    assert nodebits.convert(prepared).row_sites()["input"].granularity == "row"
    plain = nodebits.prepare(linear, make_config(method, bits=8))
    nodebits.calibrate(plain, torch.rand(NODES, 8))
    assert nodebits.convert(plain).row_sites()["input"].granularity == "tensor"
