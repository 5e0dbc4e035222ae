"""Weighted sums of integers in layers that have no form of their own."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    ARMAConv,
    ChebConv,
    ClusterGCNConv,
    GATv2Conv,
    HypergraphConv,
    LGConv,
    MessagePassing,
    MixHopConv,
    SAGEConv,
    SGConv,
    SimpleConv,
    SSGConv,
    TAGConv,
)

import nodebits
from nodebits.core.errors import (
    FloatSumWarning,
    LostEdgeWeightsWarning,
    NonFiniteError,
    UnsupportedLayerWarning,
)
from nodebits.nn.propagate.layer import QuantMessagePassing

N, E, C = 30, 140, 8


class OwnSG(SGConv):  # type: ignore[misc]  # PyG has no types
    """Runs its own messages, as every subclass does."""


class OwnLG(LGConv):  # type: ignore[misc]  # PyG has no types
    """Likewise."""


class OwnARMA(ARMAConv):  # type: ignore[misc]  # PyG has no types
    """Likewise."""


class OwnCheb(ChebConv):  # type: ignore[misc]  # PyG has no types
    """Likewise."""


PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
LAYERS: dict[str, Any] = {
    "ARMA": lambda: OwnARMA(C, 6, num_stacks=2, num_layers=2),
    "Cheb": lambda: OwnCheb(C, 6, K=4),
    "ClusterGCN": lambda: ClusterGCNConv(C, 6, diag_lambda=0.5),
    "GATv2": lambda: GATv2Conv(C, 4, heads=2),
    "Hypergraph": lambda: HypergraphConv(C, 6),
    "LG": OwnLG,
    "MixHop": lambda: MixHopConv(C, 6),
    "SG": lambda: OwnSG(C, 6, K=3),
    "SSG": lambda: SSGConv(C, 6, alpha=0.1, K=3),
    "Simple": lambda: SimpleConv(aggr="mean", combine_root="cat"),
    "TAG": lambda: TAGConv(C, 6, flow="target_to_source"),
}


def graph(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(N - 2, (2, E), generator=generator)
    return torch.randn(N, C, generator=generator), torch.cat([edges, edges[:, :5]], 1)


def calibrated(layer: nn.Module, *inputs: Any, config: Any = PTQ) -> Any:
    prepared = nodebits.prepare(layer.eval(), config)
    nodebits.calibrate(prepared, *inputs)
    return prepared.eval()


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_prepared_packed_and_loaded_are_the_same_bits(name: str, bits: int, tmp_path: Path) -> None:
    inputs = graph()
    layer = LAYERS[name]().eval()
    prepared = calibrated(layer, *inputs, config=nodebits.UniformConfig(bits=bits, mode="ptq"))
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        expected, exact = prepared(*inputs), layer(*inputs)
    assert prepared.runs == packed.module.runs == "integer sum"
    assert bits < 8 or float((expected - exact).norm() / exact.norm()) < 0.03
    assert torch.equal(packed.predict(*inputs), expected)
    packed.save(tmp_path / "layer.safetensors")
    loaded = nodebits.load(tmp_path / "layer.safetensors", model=LAYERS[name]())
    assert torch.equal(loaded.predict(*inputs), expected)
    assert nodebits.sites(packed) == nodebits.sites(prepared)
    assert set(nodebits.sites(loaded)) == set(nodebits.sites(packed))
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(again.predict(*inputs), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_float_sites_are_the_float_layer_with_its_gradients(name: str) -> None:
    x, edges = graph()
    layer = LAYERS[name]()
    prepared = nodebits.prepare(layer, nodebits.UniformConfig(bits=32, attention_bits=32))
    grown = []
    for each in (layer, prepared):
        rows = x.clone().requires_grad_()
        out = each(rows, edges)
        out.square().sum().backward()
        parameters = dict(each.named_parameters())
        grown.append((out.detach(), rows.grad, [parameters[n].grad for n in sorted(parameters)]))
        each.zero_grad()
    assert prepared.runs == "integer sum"
    (out, rows, values), (mine, my_rows, my_values) = grown
    torch.testing.assert_close(mine, out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(my_rows, rows, rtol=1e-3, atol=1e-3)
    for one, other in zip(values, my_values, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_a_layer_trains_through_codes_of_rows_and_weights() -> None:
    torch.manual_seed(0)
    x, edges = graph()
    weight = torch.rand(edges.size(1), requires_grad=True)
    prepared = nodebits.prepare(TAGConv(C, 3), nodebits.UniformConfig(bits=4)).train()
    optimizer = torch.optim.Adam([*prepared.parameters(), weight], 0.02)
    target, losses = torch.randint(3, (N,)), []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(x, edges, weight), target)
        loss.backward()
        assert weight.grad is not None and float(weight.grad.abs().sum()) > 0
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    packed = nodebits.convert(prepared.eval())
    with torch.no_grad():
        assert torch.equal(packed.predict(x, edges, weight), prepared(x, edges, weight))


def test_every_step_has_a_site_of_its_own() -> None:
    """Steps whose magnitudes are far apart: one range would serve one of them."""
    x, edges = graph()
    layer = TAGConv(C, 6, K=3, normalize=False).eval()
    inputs = (x, edges, torch.full((edges.size(1),), 12.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsupportedLayerWarning)
        prepared = nodebits.prepare(layer, PTQ)
        nodebits.calibrate(prepared, *inputs)
    ranges = {s.path: s.high for s in nodebits.sites(prepared) if s.path.startswith("message")}
    assert list(ranges) == ["message_x", "message_x_1", "message_x_2"]
    assert ranges["message_x_2"] > 10 * ranges["message_x_1"] > 100 * ranges["message_x"]
    with torch.no_grad():
        exact = layer(*inputs)
        assert float((prepared.eval()(*inputs) - exact).norm() / exact.norm()) < 0.03


def test_overrides_name_steps_and_weights() -> None:
    config = nodebits.UniformConfig(
        bits=8, mode="ptq", overrides={"message_x_1": 2, "attention_*": 4}
    )
    lines = {
        s.path: s.bits for s in nodebits.sites(calibrated(OwnSG(C, 6, 3), *graph(), config=config))
    }
    assert [lines[f"message_x{step}"] for step in ("", "_1", "_2")] == [8, 2, 8]
    assert lines["attention_edge_weight"] == 4


class Holder(nn.Module):
    """A model, so that its layer has a path."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, *inputs: Any) -> Tensor:
        made: Tensor = self.conv(*inputs)
        return made


class Switched(MessagePassing):
    """A sum, or a sum of something else."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        made: Tensor = self.propagate(edge_index, x=x)
        return made

    def message(self, x_j: Tensor) -> Tensor:
        return x_j if self.shift == 0 else x_j + self.shift


class Loop(MessagePassing):
    """A user's own steps, with heads, two weights per edge and a factor of the target."""

    def __init__(self, steps: int) -> None:
        super().__init__(aggr="mean", node_dim=0)
        self.steps = steps

    def forward(self, x: Tensor, edge_index: Tensor, alpha: Tensor, decay: Tensor) -> Tensor:
        for _ in range(self.steps):
            x = self.propagate(edge_index, x=x, alpha=alpha, decay=decay, size=None)
        return x

    def message(self, x_j: Tensor, alpha: Tensor, decay_i: Tensor) -> Tensor:
        x_j = x_j.view(x_j.size(0), 2, -1) * alpha.unsqueeze(-1)
        return x_j.view(x_j.size(0), -1) * decay_i.view(-1, 1)


def test_a_user_s_own_layer() -> None:
    x, edges = graph()
    inputs = (x, edges, torch.randn(edges.size(1), 2), torch.rand(N))
    layer = Loop(2)
    prepared = calibrated(layer, *inputs)
    packed = nodebits.convert(prepared)
    with torch.no_grad():
        expected, exact = prepared(*inputs), layer(*inputs)
    assert packed.module.runs == "integer sum"
    assert torch.equal(packed.predict(*inputs), expected)
    assert float((expected - exact).norm() / exact.norm()) < 0.03
    assert {s.path for s in nodebits.sites(packed)} == {
        "message_x", "message_x_1", "attention_alpha",
    }  # fmt: skip


def test_pairs_and_sizes() -> None:
    x, _ = graph()
    edges = torch.stack([torch.randint(N, (60,)), torch.randint(12, (60,))])
    layer = SimpleConv(aggr="sum").eval()
    pair = (x, torch.randn(12, C))
    prepared = calibrated(layer, pair, edges, torch.rand(60))
    packed = nodebits.convert(prepared)
    for extra in (torch.rand(60), None):
        with torch.no_grad():
            expected = prepared(pair, edges, extra)
        assert torch.equal(packed.predict(pair, edges, extra), expected)
        exact = layer(pair, edges, extra)
        assert expected.shape == (12, C) and float((expected - exact).norm() / exact.norm()) < 0.03


def test_hooks_and_explainers_see_messages() -> None:
    inputs = graph()
    prepared = calibrated(OwnLG(), *inputs)
    seen: list[int] = []
    handle = prepared.register_message_forward_hook(lambda *args: seen.append(args[-1].size(0)))
    with torch.no_grad():
        hooked = prepared(*inputs)
        handle.remove()
        assert prepared.runs == "at once"
        plain = prepared(*inputs)
    assert prepared.runs == "integer sum"
    assert len(seen) == 1 and seen[0] > E
    assert float((hooked - plain).norm() / plain.norm()) < 0.01


def test_a_file_of_an_older_version_runs_on_tiles() -> None:
    inputs = graph()
    packed = nodebits.convert(calibrated(SimpleConv(), *inputs))
    config = packed.module.config()
    assert config["sums"] is True and config["weights"] == []
    older = {name: config[name] for name in ("type", "form", "edges", "float_reason")}
    built = QuantMessagePassing.build(older)
    assert isinstance(built, QuantMessagePassing) and built.course.sums is False


def test_weights_that_vanish_beside_the_largest_are_told() -> None:
    x, _ = graph()
    edges = torch.stack([torch.arange(200) % N, torch.zeros(200, dtype=torch.int64)])
    weight = torch.full((200,), 1 / 600)
    weight[0] = 1.0
    with pytest.warns(LostEdgeWeightsWarning, match=r"attention_edge_weight.*attention_bits"):
        calibrated(SimpleConv(), x, edges, weight)


def test_a_hub_beyond_int32_is_summed_in_float_and_that_is_told_once() -> None:
    x, edges = graph()
    prepared = calibrated(Holder(SimpleConv()), x, edges, torch.rand(edges.size(1)))
    packed = nodebits.convert(prepared)
    hub = torch.stack([torch.arange(40_000) % N, torch.zeros(40_000, dtype=torch.int64)])
    inputs = (x, hub, torch.rand(40_000))
    for model, run in ((prepared, prepared), (packed, packed.predict)):
        with torch.no_grad():
            run(x, edges, torch.rand(edges.size(1)))
            assert {s.runs for s in nodebits.sites(model)} == {"integer sum"}
            with pytest.warns(FloatSumWarning, match=r"layer 'conv'.*floats.*node 0 has in-degree"):
                made = run(*inputs)
            exact = SimpleConv()(*inputs)
            assert float((made - exact).norm() / exact.norm()) < 0.02
            assert {s.runs for s in nodebits.sites(model)} == {"tiled"}
            with warnings.catch_warnings():
                warnings.simplefilter("error", FloatSumWarning)
                run(*inputs)
                run(x, edges, torch.rand(edges.size(1)))
        assert {s.runs for s in nodebits.sites(model)} == {"integer sum"}


def test_a_message_that_becomes_another_one_is_told() -> None:
    inputs = graph()
    packed = nodebits.convert(calibrated(Holder(Switched()), *inputs))
    packed.module.conv.shift = 1.0
    with pytest.warns(FloatSumWarning, match=r"layer 'conv'.*no product of rows"):
        made = packed.predict(*inputs)
    assert {s.runs for s in nodebits.sites(packed)} == {"tiled"}
    exact = Switched(1.0)(*inputs)
    assert float((made - exact).norm() / exact.norm()) < 0.02


def test_copies_between_forwards() -> None:
    x, edges = graph()
    prepared = calibrated(OwnSG(C, 6, K=2), x, edges)
    with torch.no_grad():
        prepared.propagate(edges, x=x, edge_weight=torch.rand(edges.size(1)))
        again = copy.deepcopy(prepared)
        assert torch.equal(again(x, edges), prepared(x, edges))


@pytest.mark.parametrize("heads", [1, 2])
def test_numbers_that_are_not_finite_are_named_by_their_site(heads: int) -> None:
    class Weighted(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor, w: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x.view(N, heads, -1), w=w).view(N, -1)

        def message(self, x_j: Tensor, w: Tensor) -> Tensor:
            return w.unsqueeze(-1) * x_j

    x, edges = graph()
    w = torch.rand(edges.size(1), heads)
    prepared = calibrated(Weighted(node_dim=0), x, edges, w)
    w[3, 0] = float("nan")
    with torch.no_grad(), pytest.raises(NonFiniteError, match=r"'attention_w'.*1 value\(s\)"):
        prepared(x, edges, w)


def test_a_median_is_no_sum() -> None:
    inputs = graph()
    prepared = calibrated(SAGEConv(C, 6, aggr="median"), *inputs)
    assert prepared.runs == "tiled" and prepared.course.sums is False
    frozen = nodebits.convert(prepared).module
    assert not [name for name in frozen.sites_config() if name.startswith("attention_")]
