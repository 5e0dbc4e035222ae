"""Prompts on top of methods: they train, pack, save, load and run as the simulation does."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, ChebConv, GCNConv

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError, UnknownNameError, UnsupportedLayerWarning
from nodebits.methods import make_config
from nodebits.methods.base import method_class
from nodebits.models import ModelSpec, build_model
from nodebits.nn.prompt import AggregationPrompt
from packed_models import CLASSES, NODES, small_graph, two_steps

METHODS = ("uniform", "degree-quant", "a2q", "mixq", "sgquant", "smp")


def prompted(name: str, method: str = "uniform", **options):
    torch.manual_seed(0)
    x, edge_index = small_graph()
    spec = ModelSpec(name, x.size(1), 16, CLASSES, heads=4)
    config = make_config(f"{method}+lorap", 4, **options)
    return two_steps(build_model(spec), config, x, edge_index), spec, x, edge_index


def expected_of(prepared: nn.Module, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = prepared.eval()(x, edge_index)
    return result


@pytest.mark.parametrize(
    ("name", "method"),
    [("gcn", method) for method in METHODS]
    + [(name, "degree-quant") for name in ("gin", "sage", "gat")]
    + [("gin", "mixq")],
)
def test_packed_equals_simulated(name: str, method: str, tmp_path: Path) -> None:
    options = {"target_bits": 8.0} if method == "a2q" else {}
    prepared, spec, x, edge_index = prompted(name, method, **options)
    expected = expected_of(prepared, x, edge_index)
    packed = nodebits.convert(prepared, spec)
    assert torch.equal(packed.predict(x, edge_index), expected)
    assert torch.equal(packed.predict(x, edge_index), expected)  # by its plan
    file = tmp_path / "model.safetensors"
    packed.save(file)
    assert torch.equal(nodebits.load(file).predict(x, edge_index), expected)
    small = lite.load(file).predict(x.numpy(), edge_index.numpy())
    np.testing.assert_allclose(small, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_prompt_is_the_formula() -> None:
    prompt = AggregationPrompt(6, 4, 2, "convs.0")
    rows = torch.randn(5, 6)
    shares = (rows @ prompt.score.weight.t()).softmax(-1)
    basis = (prompt.up.weight @ prompt.down.weight).t()  # [K, C]
    assert torch.linalg.matrix_rank(basis) == 2
    torch.testing.assert_close(prompt(rows), rows + shares @ basis)
    assert torch.equal(AggregationPrompt(6, 4, 2, "convs.0").up.weight, prompt.up.weight)
    assert not torch.equal(AggregationPrompt(6, 4, 2, "convs.1").up.weight, prompt.up.weight)


def test_prompts_learn_and_begin_near_zero() -> None:
    x, edge_index = small_graph()
    torch.manual_seed(0)
    model = GCN(x.size(1), 16, 2, CLASSES)
    plain = nodebits.prepare(model, make_config("uniform", 8))
    with_prompts = nodebits.prepare(model, make_config("uniform", 8, prompts=4))
    nodebits.calibrate(plain, x, edge_index)
    nodebits.calibrate(with_prompts, x, edge_index)
    a, b = (expected_of(m, x, edge_index) for m in (plain, with_prompts))
    assert 0 < (a - b).abs().max() < 0.1 * a.abs().max()
    trained, _, x, edge_index = prompted("gcn")
    drawn = AggregationPrompt(16, 8, 4, "convs.0")
    moved = trained.convs[0].prompt
    for part in ("score", "down", "up"):
        weight = getattr(moved, part)._parameters["weight"]
        assert not torch.equal(weight, getattr(drawn, part).weight), part


def test_sites_are_counted_and_have_the_width_of_attention() -> None:
    prepared, spec, x, edge_index = prompted("gcn", attention_bits=6)
    packed = nodebits.convert(prepared, spec)
    account = packed.account(x, edge_index)
    text = json.dumps(account.to_json()) if hasattr(account, "to_json") else str(account)
    assert "convs.0.prompt.score" in text
    sites = {site.path: site.bits for site in nodebits.sites(packed)}
    prompts = {path: bits for path, bits in sites.items() if ".prompt." in path}
    assert set(prompts.values()) - {None} == {6}
    assert sites["convs.0.message"] == 4
    plain, _, _, _ = prompted("gcn", prompts=0)
    assert not any(".prompt." in site.path for site in nodebits.sites(plain))


def test_override_names_a_prompt() -> None:
    prepared, spec, x, edge_index = prompted("gcn", overrides={"*.prompt.*": 32})
    expected = expected_of(prepared, x, edge_index)
    assert torch.equal(nodebits.convert(prepared, spec).predict(x, edge_index), expected)


def test_session_and_samples_agree() -> None:
    prepared, spec, x, edge_index = prompted("sage")
    packed = nodebits.convert(prepared, spec)
    session = nodebits.GraphSession(packed, edge_index, x)
    session.add_edges(torch.tensor([[0, 1], [5, 6]]))
    torch.testing.assert_close(session.predict(), packed.predict(*session.arguments()))
    some = packed.predict_nodes(edge_index, x, [3, 5], [NODES, NODES])
    torch.testing.assert_close(some, packed.predict(x, edge_index)[[3, 5]])


def test_layers_without_a_prompt_are_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = GCNConv(12, 8)
            self.two = ChebConv(8, 4, 2)

        def forward(self, x, edge_index):
            return self.two(self.one(x, edge_index).relu(), edge_index)

    with pytest.warns(UnsupportedLayerWarning, match="'two' .*gets no prompt"):
        nodebits.prepare(Mixed(), make_config("uniform+lorap", 4))


def test_bad_requests() -> None:
    with pytest.raises(UnknownNameError, match="add-on"):
        make_config("uniform+lorapp", 4)
    with pytest.raises(UnknownNameError, match="method"):
        method_class("unifrom+lorap")
    with pytest.raises(ConfigError, match="prompts are trained"):
        make_config("uniform+lorap", 8, mode="ptq")
    with pytest.raises(ConfigError, match="prompts"):
        make_config("uniform", 8, prompts=-1)
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="no layer of the model takes them"):
        nodebits.prepare(model, make_config("uniform+lorap", 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nodebits.prepare(GCN(4, 4, 2, 2), make_config("degree-quant+lorap", 4))
