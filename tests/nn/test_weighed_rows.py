"""A scale per row: of sums with weights where nothing is trained, and of what maps read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    ChebConv,
    GCN2Conv,
    GCNConv,
    GINConv,
    HypergraphConv,
    LGConv,
    SGConv,
    TAGConv,
)

import nodebits
from nodebits import lite
from nodebits.nn.quantizers import Quantizer

N, E, C = 200, 900, 8
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
LAYERS: dict[str, Any] = {
    "gcn": lambda: GCNConv(C, C),
    "appnp": lambda: APPNP(3, 0.1),
    "sg": lambda: SGConv(C, C, 2),
    "cheb": lambda: ChebConv(C, C, 3),
}


def graph(weighted: bool = True) -> tuple[Tensor, ...]:
    """Features whose rows differ in size, some of them empty, and edges that miss two nodes."""
    torch.manual_seed(0)
    x = torch.randn(N, C) * torch.exp(torch.randn(N, 1))
    x[::9] = 0.0
    edges = torch.randint(N - 2, (2, E))
    return (x, edges, torch.rand(E) + 0.1) if weighted else (x, edges)


def axes(model: nn.Module, kind: str) -> set[int]:
    sites = [m for m in model.modules() if isinstance(m, Quantizer)]
    return {m.axis for m in sites if kind in m.site_name and m.last_shape is not None}


def made(layer: nn.Module, args: tuple[Tensor, ...], config: Any = PTQ) -> tuple[Any, Any, float]:
    with torch.no_grad():
        expected = layer(*args)
        prepared = nodebits.prepare(layer, config)
        nodebits.calibrate(prepared, *args)
        simulated = prepared.eval()(*args)
        packed = nodebits.convert(prepared)
        assert torch.equal(packed.predict(*args), simulated)
    return prepared, packed, float((simulated - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", LAYERS)
def test_scales_of_rows_are_part_of_the_weights_of_edges(name: str, tmp_path: Any) -> None:
    args = graph()
    layer = LAYERS[name]().eval()
    prepared, packed, error = made(layer, args)
    assert axes(prepared, "message") == {0} and error < 0.01
    assert {s.runs for s in nodebits.sites(packed) if "message" in s.path} == {"integer sum"}
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", model=LAYERS[name]())
    assert torch.equal(loaded.predict(*args), packed.predict(*args))
    # Without weights the rows' scales are all that there is on the edges.
    with torch.no_grad():
        simulated, exact = prepared(*args[:2]), layer(*args[:2])
    assert torch.equal(packed.predict(*args[:2]), simulated)
    assert float((simulated - exact).norm() / exact.norm()) < 0.01


def test_sums_without_weights_keep_their_columns() -> None:
    for name in ("gcn", "appnp"):
        prepared, _, _ = made(LAYERS[name]().eval(), graph(False))
        assert axes(prepared, "message") == {1}


def test_two_sums_in_a_row_have_scales_of_rows() -> None:
    x, edges = graph(False)
    prepared, _, error = made(HypergraphConv(C, C).eval(), (x, edges))
    assert axes(prepared, "message") == {0} and error < 0.01


def test_nothing_changes_where_ranges_are_trained() -> None:
    args = graph()
    for name in LAYERS:
        prepared = nodebits.prepare(LAYERS[name](), nodebits.UniformConfig(bits=8))
        prepared(*args)
        assert 0 not in axes(prepared, "message")


@pytest.mark.parametrize(("leaves", "axis"), [(1000, 0), (3, -1)])
@pytest.mark.parametrize("method", [nodebits.UniformConfig, nodebits.DegreeQuantConfig])
def test_training_takes_scales_of_rows_behind_sums_that_differ(
    method: Any, leaves: int, axis: int, tmp_path: Any
) -> None:
    # A path whose first node has as many leaves: one scale for such sums leaves nothing of others.
    path = torch.arange(60)
    hub = torch.stack([torch.arange(60, 60 + leaves), torch.zeros(leaves, dtype=torch.int64)])
    edges = torch.cat([torch.stack([path, path.roll(1)]), hub], 1)
    x = torch.rand(60 + leaves, C) + 0.5
    layer = GINConv(nn.Sequential(nn.Linear(C, 8), nn.ReLU(), nn.Linear(8, 4)))
    prepared = nodebits.prepare(layer, method(bits=8))
    prepared(x, edges).square().sum().backward()
    assert axes(prepared, "nn.0.input") == axes(prepared, "nn.2.input") == {axis}
    assert layer.nn[0].weight.grad is not None or prepared.nn[0].weight.grad is not None
    packed = nodebits.convert(prepared.eval())
    packed.save(tmp_path / "gin.safetensors")
    loaded = nodebits.load(tmp_path / "gin.safetensors", model=layer)
    with torch.no_grad():
        expected = prepared(x, edges)
    assert torch.equal(packed.predict(x, edges), expected)
    assert torch.equal(loaded.predict(x, edges), expected)
    assert not isinstance(packed.plan(x, edges), str)


@pytest.mark.parametrize(("columns", "axis"), [(8, 0), (64, -1)])
def test_narrow_hidden_rows_have_scales_of_their_own(columns: int, axis: int) -> None:
    x, edges = graph(False)
    layer = GINConv(nn.Sequential(nn.Linear(C, columns), nn.ReLU(), nn.Linear(columns, 4)))
    prepared, _, _ = made(layer.eval(), (x, edges))
    assert axes(prepared, "nn.2.input") == {axis}


class Initial(nn.Module):
    """Reads its input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCN2Conv(64, 0.1, 0.5, 1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        result: Tensor = self.conv(x, x, edges)
        return result


def test_rows_that_are_floats_anyway_have_scales_of_their_own() -> None:
    x, edges = graph(False)
    prepared, _, _ = made(Initial().eval(), (x.repeat(1, 8), edges))
    assert axes(prepared, "conv.input") == {0}


def test_sources_without_edges_of_their_own_take_no_precision_from_others(tmp_path: Any) -> None:
    x, edges, weight = graph()
    edges[1, edges[1] == 3] = 4  # node 3 hears nobody, so its factor is 0: its rows are zeros
    edges[0, :40] = 3
    for layer in (SGConv(C, C, 2, add_self_loops=False), TAGConv(C, C, 2), LGConv()):
        prepared, packed, error = made(layer.eval(), (x, edges, weight))
        assert axes(prepared, "message_0") == {0} and error < 0.015
        packed.save(tmp_path / "model.safetensors")
        arrays = [t.numpy() for t in (x, edges, weight)]
        result = lite.load(tmp_path / "model.safetensors").predict(*arrays)
        assert torch.equal(torch.from_numpy(result), packed.predict(x, edges, weight))
