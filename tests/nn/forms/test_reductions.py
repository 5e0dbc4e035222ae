"""Extremes and statistics of codes: found by what a layer aggregates, exact, with gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv, GraphConv, MessagePassing, SAGEConv, SimpleConv
from torch_geometric.nn.aggr import (
    DegreeScalerAggregation,
    MultiAggregation,
    StdAggregation,
    VarAggregation,
)

import nodebits
from nodebits.core.errors import FloatSumWarning
from nodebits.nn.quantizers.base import Quantizer

N, E, C = 30, 140, 8
MANY = ["sum", "mean", "max", "min", "var", "std"]
SCALERS = ["identity", "amplification", "attenuation", "linear", "inverse_linear"]
DEGREES = torch.tensor([2, 3, 5, 8, 6, 4, 2])


class Shared(MessagePassing):
    """A user's own layer: steps of a maximum on matrices of several dimensions."""

    def __init__(self) -> None:
        super().__init__(aggr="max", node_dim=0)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        made: Tensor = self.propagate(edge_index, x=x.view(-1, 2, C // 2), size=None)
        return made.flatten(1)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def multi(mode: str, **options: Any) -> MultiAggregation:
    return MultiAggregation(["mean", "max", "std"], mode=mode, mode_kwargs=options)


STATISTICS: dict[str, Any] = {
    "SAGE var": lambda: SAGEConv(C, 6, aggr=VarAggregation()),
    "SAGE std": lambda: SAGEConv(C, 6, aggr="std"),
    "SAGE many": lambda: SAGEConv(C, 6, aggr=MANY),
    "Simple scaled": lambda: SimpleConv(aggr=DegreeScalerAggregation(MANY, SCALERS, DEGREES)),
    "Simple one scaled": lambda: SimpleConv(
        aggr=DegreeScalerAggregation("max", "attenuation", DEGREES, train_norm=True)
    ),
    "Simple largest of": lambda: SimpleConv(aggr=multi("max")),
    "Simple projected": lambda: SimpleConv(aggr=multi("proj", in_channels=C, out_channels=5)),
    "Simple attended": lambda: SimpleConv(aggr=multi("attn", in_channels=C, out_channels=4)),
}
EXTREMES: dict[str, Any] = {
    "SAGE max": lambda: SAGEConv(C, 6, aggr="max"),
    "SAGE pool": lambda: SAGEConv(C, 6, aggr="max", project=True),
    "GraphConv max": lambda: GraphConv(C, 6, aggr="max"),
    "GIN max": lambda: GINConv(nn.Linear(C, 6), aggr="max"),
    "own": Shared,
}
LAYERS: dict[str, tuple[Any, str]] = {
    **{name: (make, "integer max") for name, make in EXTREMES.items()},
    "Simple min": (lambda: SimpleConv(aggr="min"), "integer min"),
    "flow": (lambda: SimpleConv(aggr="max", flow="target_to_source"), "integer max"),
    **{name: (make, "integer statistics") for name, make in STATISTICS.items()},
}


def graph(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some nodes have no edges, some edges stand twice."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(N - 2, (2, E), generator=generator)
    return torch.randn(N, C, generator=generator), torch.cat([edges, edges[:, :5]], 1)


def calibrated(layer: nn.Module, *inputs: Any, bits: int = 8) -> Any:
    prepared = nodebits.prepare(layer.eval(), nodebits.UniformConfig(bits=bits, mode="ptq"))
    nodebits.calibrate(prepared, *inputs)
    return prepared.eval()


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_prepared_packed_planned_and_loaded_are_the_same_bits(
    name: str, bits: int, tmp_path: Path
) -> None:
    make, runs = LAYERS[name]
    inputs = graph()
    torch.manual_seed(0)
    layer = make().eval()
    prepared = calibrated(layer, *inputs, bits=bits)
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        expected, exact = prepared(*inputs), layer(*inputs)
    assert prepared.runs == packed.module.runs == runs
    assert {line.runs for line in nodebits.sites(packed) if "message" in line.path} == {runs}
    # A deviation below 1e-5 is none, as PyG says, and codes may fall on the other side of it.
    assert bits < 8 or float((expected - exact).norm() / exact.norm()) < 0.04
    assert torch.equal(packed.predict(*inputs), expected)
    packed.save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=make())
    assert torch.equal(loaded.predict(*inputs), expected)
    other = graph(1)
    with torch.no_grad():
        assert torch.equal(packed.predict(*other), prepared(*other))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Simple attended"])
def test_float_sites_are_the_float_layer_with_its_gradients(name: str) -> None:
    x, edges = graph()
    layer = LAYERS[name][0]()
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=32, attention_bits=32))
    grown = []
    for each in (layer, prepared):
        rows = x.clone().requires_grad_()
        out = each(rows, edges)
        out.square().sum().backward()
        parameters = dict(each.named_parameters())
        grown.append((out.detach(), rows.grad, [parameters[n].grad for n in sorted(parameters)]))
        each.zero_grad()
    assert prepared.runs == LAYERS[name][1]
    (out, rows, values), (mine, my_rows, my_values) = grown
    torch.testing.assert_close(mine, out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(my_rows, rows, rtol=1e-3, atol=1e-2)
    for one, other in zip(values, my_values, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["SAGE max", "SAGE many"])
def test_they_have_a_plan_and_train(name: str) -> None:
    torch.manual_seed(0)
    x, edges = graph()
    layer = LAYERS[name][0]()
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=4)).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.02)
    target, losses = torch.randint(6, (N,)), []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(x, edges), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    sites = [module for module in prepared.children() if isinstance(module, Quantizer)]
    assert all(p.grad is not None for site in sites for p in site.parameters())
    packed = nodebits.convert(prepared.eval())
    plan: Any = packed.plan(x, edges)
    steps = {step["op"] for step in plan.about["steps"]}
    assert steps & {"fused_extremum", "neighbor_statistics"} and "module" not in steps
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edges), prepared(x, edges))


def test_the_result_of_an_extreme_goes_on_as_codes() -> None:
    x, edges = graph()
    packed = nodebits.convert(calibrated(EXTREMES["SAGE max"](), x, edges))
    packed.predict(x, edges)
    plan: Any = packed.plan(x, edges)
    reads = [step for step in plan.about["steps"] if step["op"] == "fused_extremum"]
    assert len(reads) == 1
    after = plan.about["steps"][plan.about["steps"].index(reads[0]) + 1 :]
    assert not any(step["op"] == "check_finite" and step["args"] == [f"v{reads[0]['outs'][0]}"]
                   for step in after)  # fmt: skip


@pytest.mark.parametrize(
    "aggregation",
    [
        StdAggregation(semi_grad=True),
        MultiAggregation(["mean", "median"]),
        DegreeScalerAggregation(["mean", "mul"], ["identity"], DEGREES),
    ],
    ids=["part of a gradient", "with a median", "with a product"],
)
def test_other_aggregations_run_on_tiles(aggregation: Any) -> None:
    inputs = graph()
    prepared = calibrated(SimpleConv(aggr=aggregation), *inputs)
    assert prepared.runs in ("tiled", "at once")


def test_a_weight_of_an_edge_may_turn_the_order() -> None:
    x, edges = graph()
    layer = GraphConv(C, 6, aggr="max").eval()
    inputs = (x, edges, torch.randn(edges.size(1)))
    prepared = calibrated(layer, *inputs)
    assert prepared.runs == "tiled"
    with torch.no_grad():
        exact = layer(*inputs)
        assert float((prepared(*inputs) - exact).norm() / exact.norm()) < 0.03


def test_squares_beyond_int32_are_summed_in_float_and_that_is_told() -> None:
    x, edges = graph()
    packed = nodebits.convert(calibrated(SimpleConv(aggr=["mean", "std"]), x, edges))
    packed.predict(x, edges)
    hub = torch.stack([torch.arange(34_000) % N, torch.zeros(34_000, dtype=torch.int64)])
    with pytest.warns(FloatSumWarning, match="node 0 has in-degree 34000"):
        made = packed.predict(x, hub)
    exact = SimpleConv(aggr=["mean", "std"])(x, hub)
    assert float((made - exact).norm() / exact.norm()) < 0.02
    with warnings.catch_warnings():
        warnings.simplefilter("error", FloatSumWarning)
        largest = nodebits.convert(calibrated(SimpleConv(aggr="max"), x, edges))
        largest.predict(x, hub)  # no sum, no bound


def test_pairs_and_stacks() -> None:
    x, edges = graph()
    pair = (x, torch.randn(12, C))
    to = torch.stack([edges[0], edges[1] % 12])
    for aggr in ("max", ["mean", "min", "std"]):
        layer = SimpleConv(aggr=aggr).eval()
        stack = torch.randn(3, N, C)
        for inputs in ((pair, to), (stack, edges)):
            prepared = calibrated(layer, *inputs)
            with torch.no_grad():
                expected, exact = prepared(*inputs), layer(*inputs)
            assert expected.shape == exact.shape
            assert torch.equal(nodebits.convert(prepared).predict(*inputs), expected)
            assert float((expected - exact).norm() / exact.norm()) < 0.04


def test_rows_with_a_zero_point_each_are_not_compared() -> None:
    """Codes of A2Q's rows stand for other values in every row."""
    x, edges = graph()
    prepared = nodebits.prepare(SAGEConv(C, 6, aggr="max"), nodebits.A2QConfig(bits=4)).train()
    nodebits.calibrate(prepared, x, edges)
    for _ in range(2):
        prepared(x, edges).square().sum().backward()
    packed = nodebits.convert(prepared.eval())
    with torch.no_grad():
        expected = prepared(x, edges)
    torch.testing.assert_close(packed.predict(x, edges), expected, rtol=1e-4, atol=1e-5)
