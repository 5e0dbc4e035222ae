"""AGNNConv: cosine scores of codes, integer-normalised attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import AGNNConv

import nodebits
from nodebits.methods import UniformConfig
from nodebits.models import ModelSpec, build_model

from .cases import (
    BITS,
    FLOAT,
    adjacency_forms,
    assert_converts,
    assert_equals_float,
    assert_state_survives,
    configs,
    edges,
    features,
    quantized,
    simple_edges,
)

OPTIONS: list[dict[str, Any]] = [{}, {"requires_grad": False}, {"add_self_loops": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float_sites(options: dict[str, Any]) -> None:
    layer = AGNNConv(**options)
    with torch.no_grad():
        layer.beta.fill_(1.7)
    assert_equals_float(layer, features(), edges())
    assert_equals_float(layer, features().relu(), edges())


def test_rows_of_zeros_have_no_direction() -> None:
    x = features()
    x[3] = x[7] = 0
    index = edges()
    with torch.no_grad():
        prepared = nodebits.prepare(AGNNConv().eval(), FLOAT)
        torch.testing.assert_close(prepared(x, index), AGNNConv()(x, index), atol=1e-5, rtol=1e-5)
    # PyG's gradient of such a row is 1e12 times that of the others; here it has none by direction.
    x.requires_grad_()
    prepared(x, index).square().sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) < 1e3
    assert_converts(AGNNConv(), UniformConfig(bits=4), x.detach(), index)


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex", "coo", "csr"])
def test_adjacency_forms(form: str) -> None:
    layer = AGNNConv(add_self_loops=False)
    assert_equals_float(layer, features(), adjacency_forms(simple_edges())[form])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_packed_is_the_simulation(bits: int, options: dict[str, Any]) -> None:
    for x in (features(), features().relu()):
        for config in configs(bits, {"attention": 32}, {"message": 32}):
            assert_converts(AGNNConv(**options), config, x, edges())


def test_no_edges_and_no_nodes() -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    for loops in (True, False):
        layer = AGNNConv(add_self_loops=loops)
        assert_equals_float(layer, features(), none)
        assert_converts(layer, UniformConfig(bits=4), features(), none)
        prepared = quantized(layer, UniformConfig(bits=4), features(), edges()).train()
        prepared(features(0), none).sum().backward()


def test_attention_follows_the_codes() -> None:
    """The weights are the softmax of cosines of the *quantized* rows, to half a code."""
    x, index = features().relu(), edges()
    prepared = quantized(AGNNConv(), UniformConfig(bits=2, attention_bits=8), x, index)
    rounded = prepared.message(x).dequantize()  # type: ignore[operator, union-attr]
    expected = AGNNConv()(rounded, index)
    assert torch.allclose(prepared(x, index), expected, atol=4 * float(rounded.max()) / 255)


@pytest.mark.parametrize("bits", [8, 2])
def test_states(bits: int) -> None:
    assert_state_survives(AGNNConv(), UniformConfig(bits=bits), features(), edges())


def test_model_is_rebuilt_from_its_file(tmp_path: Any) -> None:
    spec = ModelSpec("agnn", 12, 8, 3)
    x, index = features(), edges()
    model = build_model(spec).eval()
    twin = nodebits.prepare(model, FLOAT)
    torch.testing.assert_close(twin(x, index), model(x, index), atol=1e-5, rtol=1e-5)
    prepared = quantized(model, UniformConfig(bits=4), x, index)
    nodebits.convert(prepared, spec).save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.predict(x, index), prepared(x, index))
    assert loaded.module.convs[1].beta.item() == model.convs[1].beta.item()  # type: ignore[index, operator, union-attr]
