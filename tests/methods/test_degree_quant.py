"""Degree-Quant: who is protected, when, and what that does to values and ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, GIN, GCNConv, GINConv

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.core.observer import Observer, PercentileObserver
from nodebits.graph import Graph, as_graph, graph_scope
from nodebits.methods import DegreeQuantConfig, make_config
from nodebits.methods.degree_quant import DegreeProtection
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    LearnedQuantizer,
    ObservedQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
)
from nodebits.ops.autograd import Gradient
from nodebits.tasks import GRAPH, NODE
from nodebits.train import FitConfig

NODES = 200
DRAW = DegreeProtection.draw


class Fixed:
    """Protects the same rows always."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def draw(self, graph: Graph, batch: Tensor | None) -> Tensor:
        return self.mask


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(NODES, 12), torch.randint(NODES, (2, 1000))


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every mask that is drawn."""
    masks: list[Tensor] = []

    def spy(self: DegreeProtection, graph: Graph, batch: Tensor | None) -> Tensor | None:
        mask = DRAW(self, graph, batch)
        assert mask is not None
        masks.append(mask)
        return mask

    monkeypatch.setattr(DegreeProtection, "draw", spy)
    return masks


def test_a_new_mask_per_layer_and_forward(draws: list[Tensor]) -> None:
    prepared = nodebits.prepare(GCN(12, 8, 3, 4), DegreeQuantConfig(bits=4)).train()
    x, index = inputs()
    prepared(x, index)
    assert len(draws) == 3
    prepared(x, index)
    assert len(draws) == 6
    for i, mask in enumerate(draws):
        assert 0.05 < mask.float().mean() < 0.3
        assert not any(torch.equal(mask, other) for other in draws[:i])


def test_nothing_is_protected_in_evaluation(draws: list[Tensor]) -> None:
    x, index = inputs()
    prepared = nodebits.prepare(GCN(12, 8, 2, 4), DegreeQuantConfig(bits=4)).eval()
    nodebits.calibrate(prepared, x, index)
    assert torch.equal(prepared(x, index), prepared(x, index))
    assert not draws


def test_masks_follow_the_degree_before_self_loops(draws: list[Tensor]) -> None:
    x = torch.randn(4, 12)
    index = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 3, 3, 2]])
    config = DegreeQuantConfig(bits=4, p_min=0.0, p_max=1.0)
    prepared = nodebits.prepare(GCNConv(12, 4), config)
    nodebits.calibrate(prepared, x, index)
    prepared.train()
    for _ in range(150):
        prepared(x, index)
    share = torch.stack(draws).float().mean(0)
    torch.testing.assert_close(share, torch.tensor([0.5, 0.5, 0.75, 1.0]), atol=0.12, rtol=0.0)


def test_each_graph_of_a_batch_has_its_own_ranks() -> None:
    index = torch.tensor([[0, 1, 3, 4, 4, 4], [1, 1, 4, 3, 3, 3]])
    graph = as_graph(index, 6)
    protection = DegreeProtection(0.0, 1.0)

    def shares(batch: Tensor | None) -> Tensor:
        masks = [protection.draw(graph, batch) for _ in range(400)]
        return torch.stack([m for m in masks if m is not None]).float().mean(0)

    expected = torch.tensor([2, 3, 2, 3, 2, 1]) / 3  # degrees 0 2 0 | 3 1 0
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(shares(batch), expected, atol=0.1, rtol=0.0)
    # Another batch vector on the same graph is another distribution.
    whole = torch.tensor([3, 5, 3, 6, 4, 3]) / 6
    torch.testing.assert_close(shares(None), whole, atol=0.1, rtol=0.0)
    torch.testing.assert_close(shares(batch), expected, atol=0.1, rtol=0.0)


def test_bipartite_sources_have_no_degree() -> None:
    graph = as_graph(torch.tensor([[0, 4], [1, 0]]), 5, 2)
    assert DegreeProtection(0.0, 1.0).draw(graph, None) is None


def test_the_scope_gives_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor | None] = []

    def spy(self: DegreeProtection, graph: Graph, batch: Tensor | None) -> Tensor | None:
        seen.append(batch)
        return DRAW(self, graph, batch)

    monkeypatch.setattr(DegreeProtection, "draw", spy)
    x, index = inputs()
    prepared = nodebits.prepare(GCN(12, 8, 2, 4), DegreeQuantConfig(bits=4)).train()
    batch = torch.arange(NODES) // 100
    with graph_scope(batch=batch):
        prepared(x, index)
    assert all(b is batch for b in seen) and len(seen) == 2


@pytest.mark.parametrize("ranges", ["learned", "percentile"])
@pytest.mark.parametrize("preset", ["default", "published"])
def test_protected_messages_equal_float(
    ranges: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DegreeQuantConfig(bits=4, ranges=ranges, preset=preset, overrides={"*output": 32})
    layer = GCNConv(12, 5, normalize=False)
    mask = torch.rand(NODES) < 0.2
    x, index = inputs()
    x[mask] *= 30
    prepared = nodebits.prepare(layer, config).train()
    prepared.protection = Fixed(mask)  # type: ignore[assignment]
    site = prepared.get_submodule("message")
    seen: list[tuple[Tensor, Tensor]] = []
    site.register_forward_hook(lambda m, i, o: seen.append((i[0], o.dequantize())))
    observed: list[int] = []
    estimate = Observer.estimate

    def spy(self: Observer, batch: Tensor) -> None:
        observed.append(batch.size(0))
        estimate(self, batch)

    monkeypatch.setattr(Observer, "estimate", spy)
    prepared(x, index)
    (entered, left), rest = seen[0], ~mask
    torch.testing.assert_close(left[mask], entered[mask], rtol=1e-5, atol=1e-4)
    assert not torch.isclose(left[rest], entered[rest], rtol=1e-5, atol=1e-4).all()
    # Ranges come from the other rows, which are thirty times smaller.
    assert isinstance(site, ObservedQuantizer | LearnedQuantizer)
    scale = site.qparams()[0]
    assert float(scale.max()) * 15 < 3 * float(entered[rest].abs().max())
    assert set(observed) <= {int(rest.sum())}
    assert observed or ranges == "learned"


def test_all_rows_are_observed_in_calibration() -> None:
    x, index = inputs()
    prepared = nodebits.prepare(GCNConv(12, 5), DegreeQuantConfig(bits=4, preset="published"))
    nodebits.calibrate(prepared.eval(), x, index)
    site = prepared.get_submodule("lin.input")
    assert isinstance(site, ObservedQuantizer)
    expected = PercentileObserver(0.01).measure(x)
    assert torch.equal(torch.stack(site.observer.range()), torch.stack(expected))


@pytest.mark.parametrize(("bits", "percentile"), [(8, 0.001), (4, 0.01), (2, 0.01)])
def test_published_preset(bits: int, percentile: float) -> None:
    prepared = nodebits.prepare(GIN(12, 8, 2, 4), DegreeQuantConfig(bits=bits, preset="published"))
    quantizers = [
        m
        for path, m in prepared.named_modules()
        if isinstance(m, Quantizer) and not path.endswith(("message_dst", "attention"))
    ]
    assert len(quantizers) == 2 * (2 + 2 * 2)  # message and output, and those of two linears
    for quantizer in quantizers:
        assert isinstance(quantizer, ObservedQuantizer)
        assert isinstance(quantizer.observer, PercentileObserver)
        assert quantizer.bits == bits and quantizer.axis == -1 and not quantizer.symmetric
        assert quantizer.observer.percentile == percentile
        assert quantizer.observer.momentum is None
        assert quantizer.gradient is Gradient.STRICT
    for conv in ("convs.0", "convs.1"):
        assert prepared.get_submodule(f"{conv}.output").bits == bits
        weight = prepared.get_submodule(f"{conv}.nn.lins.0.quantized_weight")
        assert isinstance(weight, ObservedWeightQuantizer) and weight.observer.axis == -1


def test_published_probabilities() -> None:
    assert DegreeQuantConfig(bits=8).protection() == DegreeProtection(0.0, 0.1)
    assert DegreeQuantConfig(bits=4).protection() == DegreeProtection(0.1, 0.2)
    assert DegreeQuantConfig(bits=4, p_max=0.5).protection() == DegreeProtection(0.1, 0.5)


def test_default_preset() -> None:
    config = DegreeQuantConfig(bits=4, ranges="percentile")
    message = config.quantizer(SiteInfo("convs.0", "GCNConv", "message", "message", 16), 4)
    assert isinstance(message, ObservedQuantizer) and message.axis == 1
    assert message.protectable and message.observer.momentum == 0.05
    raw = config.quantizer(SiteInfo("convs.0.lin", "Linear", "input", "input", 1433), 4)
    assert not raw.protectable
    learned = DegreeQuantConfig(bits=2).quantizer(
        SiteInfo("convs.0", "GCNConv", "message", "message", 16), 2
    )
    assert isinstance(learned, LearnedQuantizer) and learned.centered and learned.protectable


@pytest.mark.parametrize("protect_mlp", [False, True])
def test_linears_inside_gin(protect_mlp: bool) -> None:
    x, index = inputs()
    layer = GINConv(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)))
    model = nn.ModuleDict({"conv": layer})
    config = DegreeQuantConfig(bits=4, protect_mlp=protect_mlp)
    conv = nodebits.prepare(model, config).train().get_submodule("conv")
    conv.protection = Fixed(torch.arange(NODES) < 50)  # type: ignore[assignment]
    whole: dict[str, bool] = {}
    for name in ("message", "nn.0.input", "nn.2.input"):

        def hook(module: nn.Module, given: Any, codes: Any, name: str = name) -> None:
            whole[name] = bool((codes.codes[:50] == codes.codes[:50].round()).all())

        conv.get_submodule(name).register_forward_hook(hook)
    conv(x, index)
    assert whole["message"] is False
    assert whole["nn.0.input"] is whole["nn.2.input"] is not protect_mlp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": "minmax"}, "ranges must be one of"),
        ({"p_min": 0.3}, r"p_min=0\.3, p_max=0\.2"),
        ({"p_max": 1.2}, r"p_max=1\.2"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config("degree-quant", 4, **options)


def test_a_step_that_protects_every_row() -> None:
    x, index = inputs()
    prepared = nodebits.prepare(GCNConv(12, 5), DegreeQuantConfig(bits=4)).train()
    nodebits.calibrate(prepared, x, index)
    prepared.protection = Fixed(torch.ones(NODES, dtype=torch.bool))  # type: ignore[assignment]
    prepared(x, index).sum().backward()


def test_a_first_step_that_protects_every_row() -> None:
    prepared = nodebits.prepare(GCNConv(12, 5), DegreeQuantConfig(bits=4)).train()
    prepared.protection = Fixed(torch.ones(1, dtype=torch.bool))  # type: ignore[assignment]
    prepared(torch.randn(1, 12), torch.zeros(2, 0, dtype=torch.int64))


def test_the_published_rates_are_of_graphs() -> None:
    fit = FitConfig()
    for bits, rate in ((8, 0.005), (4, 0.001), (2, fit.lr)):
        assert DegreeQuantConfig(bits=bits).published_fit(fit, GRAPH).lr == rate
        assert DegreeQuantConfig(bits=bits).published_fit(fit, NODE).lr == fit.lr
