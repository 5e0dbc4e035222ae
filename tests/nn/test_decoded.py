"""A weight that other code than its layer reads: the same values prepared and packed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv

from nodebits.core.errors import ConfigError
from nodebits.methods import UniformConfig, calibrate, make_config, prepare
from nodebits.runtime import convert
from packed_models import CLASSES, FEATURES, small_graph, two_steps

X, EDGES = small_graph()


class Reading(nn.Module):
    """Decodes by the weight of its encoder, and scales by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, CLASSES)
        self.conv = GCNConv(CLASSES, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(self.encoder(x), edge_index)
        decoded = F.linear(h @ self.encoder.weight, weight=self.encoder.weight)
        return h + decoded / self.conv.lin.weight.norm()


@pytest.mark.parametrize("method", ("uniform", "degree-quant", "a2q"))
@pytest.mark.parametrize("bits", (8, 2))
def test_packed_is_simulated(method: str, bits: int) -> None:
    prepared = two_steps(Reading(), make_config(method, bits), X, EDGES)
    with torch.no_grad():
        expected = prepared(X, EDGES)
    assert torch.equal(convert(prepared).predict(X, EDGES), expected)
    assert torch.equal(prepared(X, EDGES).detach(), expected)


def test_calibrated() -> None:
    model = Reading().eval()
    prepared = prepare(model, UniformConfig(bits=8, mode="ptq"))
    calibrate(prepared, X, EDGES)
    out = convert(prepared).predict(X, EDGES)
    assert torch.equal(out, prepared(X, EDGES).detach())
    torch.testing.assert_close(out, model(X, EDGES), rtol=0.05, atol=0.05)


def _parameter(layer: nn.Module) -> Tensor:
    return dict(layer.named_parameters())["weight"]


WRITES: dict[str, Any] = {
    "data": lambda w: w.data.fill_(0.5),
    "init": lambda w: nn.init.constant_(w, 0.5),
    "item": lambda w: w.data.__setitem__(slice(None), 0.5),
    "set data": lambda w: setattr(w, "data", torch.full((3, 4), 0.5)),
    "detach": lambda w: w.detach().copy_(torch.full((3, 4), 0.5)),
    "out": lambda w: torch.full((3, 4), 0.5, out=w.data),
    "foreach": lambda w: torch._foreach_copy_([w.data], [torch.full((3, 4), 0.5)]),
}


@pytest.mark.parametrize("kind", WRITES)
def test_what_is_written_goes_to_the_parameter(kind: str) -> None:
    layer = prepare(nn.Linear(4, 3), UniformConfig(bits=8)).eval()
    assert layer.weight is _parameter(layer)
    calibrate(layer, torch.rand(5, 4))
    assert layer.weight is not _parameter(layer)
    WRITES[kind](layer.weight)
    assert bool((_parameter(layer) == 0.5).all())
    packed = convert(layer)
    with pytest.raises(ConfigError, match="packed and cannot be written"):
        WRITES[kind](packed.module.weight)


def test_gradient_and_freezing_are_those_of_the_parameter() -> None:
    layer = prepare(nn.Linear(4, 3), UniformConfig(bits=8)).eval()
    calibrate(layer, torch.rand(5, 4))
    optimizer = torch.optim.Adam([layer.weight], 0.1)
    before = _parameter(layer).detach().clone()
    layer(torch.rand(5, 4)).sum().backward()
    assert torch.equal(layer.weight.grad, _parameter(layer).grad)
    optimizer.step()
    assert not torch.equal(_parameter(layer), before)
    layer.weight.requires_grad_(False)
    assert not _parameter(layer).requires_grad
    assert torch.equal(copy.deepcopy(layer.weight), layer.weight)


def test_looking_does_not_set_the_scale() -> None:
    layer = prepare(nn.Embedding(3, 4), UniformConfig(bits=8)).eval()
    assert layer.weight.shape == (3, 4)
    layer.load_state_dict({"weight": torch.full((3, 4), 100.0)}, strict=False)
    torch.testing.assert_close(layer.weight.data, torch.full((3, 4), 100.0), rtol=0.02, atol=0)
