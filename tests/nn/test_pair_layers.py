"""Layers whose maps of both ends of an edge come apart into maps of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, PNAConv

import nodebits
from nodebits.core.errors import AccumulatorOverflowError, ShapeError
from nodebits.nn.pair_linear import QuantPairLinear
from nodebits.nn.scaled_linear import QuantScaledLinear

N, E, C = 30, 140, 8
KINDS = ["mean", "max", "min", "std", "var", "sum"]
SCALERS = ["identity", "amplification", "attenuation", "linear", "inverse_linear"]
DEGREES = torch.tensor([2, 3, 5, 8, 6, 4, 2])


def both(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * C, 6), *more)


def pna(**options: Any) -> PNAConv:
    return PNAConv(C, 6, KINDS, SCALERS, DEGREES, **options)


APART: dict[str, tuple[Any, str]] = {
    "one map": (lambda: EdgeConv(nn.Linear(2 * C, 6, bias=False)), "max"),
    "max of ReLU": (lambda: EdgeConv(both(nn.ReLU())), "max"),
    "min of sigmoid": (lambda: EdgeConv(both(nn.Sigmoid()), aggr="min"), "min"),
    "leaky": (lambda: EdgeConv(both(nn.LeakyReLU(0.2), nn.Tanh())), "max"),
    "mean": (lambda: EdgeConv(both(), aggr="mean"), "sum"),
    "sum": (lambda: EdgeConv(nn.Linear(2 * C, 6), aggr="add"), "sum"),
    "sum of ReLU": (lambda: EdgeConv(both(nn.ReLU()), aggr="add"), "sum"),
    "mean of ReLU": (lambda: EdgeConv(both(nn.ReLU()), aggr="mean"), "sum"),
    "PNA": (pna, "statistics"),
    "PNA towers": (lambda: pna(towers=2), "statistics"),
    "PNA divided": (lambda: pna(towers=2, divide_input=True, post_layers=2), "statistics"),
    "PNA learned": (lambda: pna(train_norm=True), "statistics"),
    "PNA edges": (lambda: pna(edge_dim=3), "statistics"),
    "PNA edges divided": (lambda: pna(edge_dim=3, towers=2, divide_input=True), "statistics"),
}
WHOLE: dict[str, Any] = {
    "two maps": lambda: EdgeConv(both(nn.ReLU(), nn.Linear(6, 4))),
    "sum of ELU": lambda: EdgeConv(both(nn.ELU()), aggr="add"),
    "falling": lambda: EdgeConv(both(nn.LeakyReLU(-0.5))),
    "not monotone": lambda: EdgeConv(both(nn.SiLU())),
    "normed": lambda: EdgeConv(both(nn.BatchNorm1d(6))),
    "flow": lambda: EdgeConv(both(), flow="target_to_source"),
    "PNA of two": lambda: pna(pre_layers=2),
    "PNA with a median": lambda: PNAConv(C, 6, ["median", "max"], SCALERS, DEGREES),
}


def graph(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(N - 2, (2, E), generator=generator)
    return torch.randn(N, C, generator=generator), torch.cat([edges, edges[:, :5]], 1)


def inputs_of(name: str) -> tuple[Tensor, ...]:
    """Rows and edges, and features of edges for layers that take them."""
    x, edges = graph()
    return (x, edges, torch.randn(edges.size(1), 3)) if "edges" in name else (x, edges)


def calibrated(layer: nn.Module, *inputs: Any, bits: int = 8) -> Any:
    prepared = nodebits.prepare(layer.eval(), nodebits.UniformConfig(bits=bits, mode="ptq"))
    nodebits.calibrate(prepared, *inputs)
    return prepared.eval()


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("name", APART)
def test_the_same_bits_prepared_packed_planned_and_loaded(
    name: str, bits: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    make, runs = APART[name]
    inputs, layer = inputs_of(name), make().eval()
    prepared = calibrated(layer, *inputs, bits=bits)
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        expected, exact = prepared(*inputs), layer(*inputs)
    shown = {s.runs for s in nodebits.sites(packed)}
    assert shown == {f"integer {runs}, maps by node", "integer product"}
    assert bits < 8 or float((expected - exact).norm() / exact.norm()) < 0.05
    for _ in range(2):
        assert torch.equal(packed.predict(*inputs), expected)
    packed.save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=make())
    assert torch.equal(loaded.predict(*inputs), expected)
    plan: Any = packed.plan(*inputs)
    assert "module" not in {step["op"] for step in plan.about["steps"]}


@pytest.mark.parametrize("name", APART)
def test_float_sites_are_the_float_layer_with_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    x, *others = inputs_of(name)
    layer = APART[name][0]()
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=32, attention_bits=32))
    grown = []
    for each in (layer, prepared):
        rows = x.clone().requires_grad_()
        out = each(rows, *others)
        out.square().sum().backward()
        parameters = dict(each.named_parameters())
        grown.append((out.detach(), rows.grad, {n: p.grad for n, p in parameters.items()}))
        each.zero_grad()
    (out, rows, values), (mine, my_rows, my_values) = grown
    torch.testing.assert_close(mine, out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(my_rows, rows, rtol=1e-2, atol=1e-2)
    assert my_values.keys() == values.keys()
    for key, value in values.items():
        torch.testing.assert_close(my_values[key], value, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("name", WHOLE)
def test_others_run_their_own_messages(name: str) -> None:
    inputs = graph()
    prepared = calibrated(WHOLE[name](), *inputs)
    assert not any(isinstance(m, QuantPairLinear) for m in prepared.modules())
    assert {s.runs for s in nodebits.sites(prepared)} & {"tiled", "at once"}


def test_a_hook_on_a_map_of_edges_is_called_with_edges() -> None:
    x, edges = graph()
    layer = EdgeConv(both(nn.ReLU())).eval()
    seen: list[int] = []
    layer.nn[0].register_forward_hook(lambda module, given, out: seen.append(len(out)))
    prepared = calibrated(layer, x, edges)
    seen.clear()
    with torch.no_grad():
        prepared(x, edges)
    assert sum(seen) >= edges.size(1)


@pytest.mark.parametrize("name", ["max of ReLU", "PNA towers"])
def test_the_weight_of_a_prepared_map_is_that_of_its_codes(name: str) -> None:
    torch.manual_seed(0)
    layer = APART[name][0]()
    prepared = calibrated(layer, *graph())
    packed = nodebits.convert(prepared).module
    found = 0
    for path, module in prepared.named_modules():
        if isinstance(module, QuantPairLinear | QuantScaledLinear):
            weight = layer.get_submodule(path).weight
            found += 1
            for each in (module.weight, packed.get_submodule(path).weight):
                assert each.shape == weight.shape
                assert float((each - weight).norm() / weight.norm()) < 0.02
    assert found == (1 if name == "max of ReLU" else 4)


def test_a_step_trains_every_map() -> None:
    torch.manual_seed(0)
    x, edges = graph()
    prepared = nodebits.prepare(pna(), nodebits.UniformConfig(bits=4)).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.01)
    target, losses = torch.randint(6, (N,)), []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(x, edges), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    packed = nodebits.convert(prepared.eval())
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edges), prepared(x, edges))


def test_pairs_of_features() -> None:
    x, edges = graph()
    pair, to = (x, torch.randn(12, C)), torch.stack([edges[0], edges[1] % 12])
    layer = EdgeConv(both(nn.ReLU())).eval()
    prepared = calibrated(layer, pair, to)
    with torch.no_grad():
        expected, exact = prepared(pair, to), layer(pair, to)
    assert expected.shape == (12, 6)
    assert torch.equal(nodebits.convert(prepared).predict(pair, to), expected)
    assert float((expected - exact).norm() / exact.norm()) < 0.05


def test_edge_features_of_a_layer_without_them_are_refused() -> None:
    x, edges = graph()
    prepared = calibrated(pna(), x, edges)
    with pytest.raises(ShapeError, match=r"edge_attr.*without edge_dim"):
        prepared(x, edges, torch.randn(edges.size(1), 3))


def test_a_hub_beyond_int32_is_refused_with_the_layer_s_name() -> None:
    x, edges = graph()
    packed = nodebits.convert(calibrated(pna(), x, edges))
    hub = torch.stack([torch.arange(34_000) % N, torch.zeros(34_000, dtype=torch.int64)])
    with pytest.raises(AccumulatorOverflowError, match=r"PNAConv.*node 0 has in-degree 34000"):
        packed.predict(x, hub)


@pytest.mark.parametrize("name", ["PNA", "PNA towers", "PNA divided"])
def test_a_graph_without_nodes(name: str) -> None:
    x, edge_index = torch.randn(20, C), torch.randint(0, 20, (2, 60))
    prepared = calibrated(APART[name][0](), x, edge_index)
    packed = nodebits.convert(prepared)
    for model in (prepared, packed):
        assert model(x[:0], edge_index[:, :0]).shape == (0, 6)
