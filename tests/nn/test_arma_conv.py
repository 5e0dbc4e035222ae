"""ARMAConv: PyG's stacks of recursive filters, as sums and products of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import ARMAConv

import nodebits
from nn.cases import FLOAT
from nodebits.core.errors import ConfigError
from nodebits.nn.arma_conv import QuantARMAConv
from nodebits.nn.propagate.layer import QuantMessagePassing

N, E, C = 40, 170, 8
PTQ = nodebits.UniformConfig(bits=8, mode="ptq")

# What a layer is made with: narrower than x in all, as wide, and wider.
LAYERS: dict[str, dict[str, Any]] = {
    "one": {"out_channels": 6},
    "narrow": {"out_channels": 3, "num_stacks": 2, "num_layers": 3},
    "wide": {"out_channels": 6, "num_stacks": 3, "num_layers": 3},
    "shared": {"out_channels": 6, "num_stacks": 2, "num_layers": 4, "shared_weights": True},
    "narrow shared": {
        "out_channels": 3, "num_stacks": 2, "num_layers": 3, "shared_weights": True,
    },
    "no activation": {"out_channels": 6, "num_stacks": 2, "num_layers": 2, "act": None},
    "no bias": {"out_channels": 6, "num_stacks": 2, "num_layers": 2, "bias": False},
    "elu": {"out_channels": 6, "num_stacks": 2, "num_layers": 2, "act": nn.ELU()},
    "tanh": {"out_channels": 3, "num_stacks": 2, "num_layers": 2, "act": torch.tanh},
    "over stacks": {
        "out_channels": 6, "num_stacks": 2, "num_layers": 2, "act": nn.Softmax(-3),
    },
    "dropout": {"out_channels": 6, "num_stacks": 2, "num_layers": 2, "dropout": 0.5},
}  # fmt: skip


def layer(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        made = ARMAConv(C, **LAYERS[name])
        if made.bias is not None:
            nn.init.normal_(made.bias)
        return made.eval()


def graph(nodes: int = N) -> tuple[Tensor, Tensor]:
    """Edges one way, some twice, loops, and two nodes without any."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(nodes - 2, (2, E), generator=generator)
    edges = torch.cat([edges, edges[:, :6], torch.tensor([[3, 5], [3, 5]])], 1)
    return torch.randn(nodes, C, generator=generator), edges


def calls(edges: Tensor) -> dict[str, tuple[Any, ...]]:
    weight = torch.rand(edges.size(1), generator=torch.Generator().manual_seed(1)) + 0.1
    return {"plain": (edges,), "weights": (edges, weight)}


def prepared_on(given: nn.Module, *args: Any) -> Any:
    prepared = nodebits.prepare(given, PTQ)
    nodebits.calibrate(prepared, *args)
    return prepared.eval()


@pytest.mark.parametrize("call", ["plain", "weights"])
@pytest.mark.parametrize("name", LAYERS)
def test_in_float_it_is_pyg_s_layer(name: str, call: str) -> None:
    x, edges = graph()
    given = layer(name)
    ours = nodebits.prepare(given, FLOAT).eval()
    assert isinstance(ours, QuantARMAConv)
    with torch.no_grad():
        for rows in (x, torch.stack([x, x.flip(0)])):
            args = rows, *calls(edges)[call]
            torch.testing.assert_close(ours(*args), given(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", ["plain", "weights"])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_is_prepared_to_the_bit(name: str, call: str) -> None:
    x, edges = graph()
    args = x, *calls(edges)[call]
    prepared = prepared_on(layer(name), *args)
    with torch.no_grad():
        simulated, exact = prepared(*args), layer(name)(*args)
    assert float((simulated - exact).norm() / exact.norm()) < 0.03
    packed = nodebits.convert(prepared)
    for _ in range(4):  # the module, then the plan
        assert torch.equal(packed.predict(*args), simulated)
    plan = packed.plan(*args)
    assert not isinstance(plan, str)
    assert "module" not in {step["op"] for step in plan.about["steps"]}
    approximate = name in ("elu", "tanh", "over stacks")
    assert bool(plan.leaves) is approximate


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_a_plan_holds_for_other_graphs_and_alone(name: str, tmp_path: Path) -> None:
    x, edges = graph()
    prepared = prepared_on(layer(name), x, edges)
    packed = nodebits.convert(prepared)
    packed.predict(x, edges)
    packed.save(tmp_path / "arma.safetensors")
    x, edges = graph(57)
    with torch.no_grad():
        expected = prepared(x, edges)
    assert torch.equal(packed.predict(x, edges), expected)
    alone = nodebits.load(tmp_path / "arma.safetensors")
    assert torch.equal(alone.predict(x, edges), expected)


def test_stacks_that_are_narrower_map_first() -> None:
    x, edges = graph()
    shapes = {}
    for name in ("narrow", "wide"):
        packed = nodebits.convert(prepared_on(layer(name), x, edges))
        shapes[name] = {site.path for site in nodebits.sites(packed)}
    assert {"quantized_init", "message_0"} <= shapes["narrow"] and "input_0" not in shapes["narrow"]
    assert {"quantized_init_2", "input_0", "message_1_2"} <= shapes["wide"]


def test_features_packed_ahead() -> None:
    x, edges = graph()
    packed = nodebits.convert(prepared_on(layer("narrow"), x, edges))
    assert torch.equal(packed.predict(packed.pack_input(x), edges), packed.predict(x, edges))
    packed = nodebits.convert(prepared_on(layer("wide"), x, edges))
    with pytest.raises(ConfigError, match="pack"):
        packed.predict(packed.pack_input(x), edges)


def test_no_float_rows_lie_between_two_layers_of_a_stack() -> None:
    x, edges = graph()
    prepared = nodebits.prepare(layer("shared"), nodebits.UniformConfig(bits=4)).train()
    prepared(x, edges)  # ranges that training learns are one for all rows
    packed = nodebits.convert(prepared.eval())
    packed.predict(x, edges)
    floats = [one for one in packed.chains if one.float_reason]
    assert len(floats) == 2  # what is averaged at last, one of each stack


def test_dropout_hides_x_from_roots_in_training_only() -> None:
    x, edges = graph()
    prepared = nodebits.prepare(layer("dropout"), FLOAT).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.no_grad():
            first, second = prepared(x, edges), prepared(x, edges)
    assert not torch.equal(first, second)
    prepared.eval()
    with torch.no_grad():
        assert torch.equal(prepared(x, edges), prepared(x, edges))


def test_other_forms_of_the_layer_run_their_own_messages() -> None:
    for options in ({"aggr": "mean"}, {"flow": "target_to_source"}):
        made = ARMAConv(C, 6, num_layers=2, **options).eval()
        assert isinstance(nodebits.prepare(made, PTQ), QuantMessagePassing)


def test_a_layer_that_was_lazy() -> None:
    x, edges = graph()
    made = ARMAConv(-1, 6, num_stacks=2, num_layers=2).eval()
    with torch.no_grad():
        made(x, edges)
    prepared = prepared_on(made, x, edges)
    assert prepared.in_channels == C
    with torch.no_grad():
        assert torch.equal(nodebits.convert(prepared).predict(x, edges), prepared(x, edges))


def test_an_activation_of_one_s_own() -> None:
    x, edges = graph()
    made = ARMAConv(C, 6, num_stacks=2, num_layers=2, act=lambda h: F.relu(h) * 0.5).eval()
    prepared = prepared_on(made, x, edges)
    with torch.no_grad():
        simulated, exact = prepared(x, edges), made(x, edges)
    assert float((simulated - exact).norm() / exact.norm()) < 0.03
    assert torch.equal(nodebits.convert(prepared).predict(x, edges), simulated)
