"""Layers that a model reaches beside its submodules are swapped there too, or named."""

from __future__ import annotations

import collections
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import nodebits
from nodebits.core.errors import NotCalibratedError, UnsupportedLayerWarning
from nodebits.nn.layer import QuantLayer
from nodebits.nn.references import References, captured_modules

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])

Pair = collections.namedtuple("Pair", "first rest")


class Box:
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


class Held(nn.Module):
    """Keeps its layers wherever Python lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GCNConv(8, 8), GCNConv(8, 8)
        self.pair = Pair(self.a, {"b": [self.b]})
        self.part = functools.partial(self.a)
        self.method = self.b.forward
        self.box = Box(self.a)
        self.tuple = (1, (self.b,))
        self.set = {self.a}
        self.loop: list[Any] = []
        self.loop.append(self.loop)
        self.__dict__["direct"] = self.a

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        (only,) = self.set
        steps = (
            self.pair.first,
            self.pair.rest["b"][0],
            self.part,
            self.method,
            self.box.layer,
            self.tuple[1][0],
            only,
            self.direct,
        )
        for step in steps:
            x = step(x, edge_index)
        return x


def test_references_lead_to_the_new_layers(tmp_path: Path) -> None:
    model = Held().eval()
    prepared = nodebits.prepare(model, PTQ)
    assert type(model.pair.first) is GCNConv, "the model that was given is not changed"
    assert prepared.pair.first is prepared.a and prepared.set == {prepared.a}
    nodebits.calibrate(prepared, X, EDGES)
    packed = nodebits.convert(prepared)
    packed.save(tmp_path / "m.safetensors")
    loaded = nodebits.load(tmp_path / "m.safetensors", model=model)
    with torch.no_grad():
        simulated, expected = prepared(X, EDGES), model(X, EDGES)
    assert torch.equal(packed.predict(X, EDGES), simulated)
    assert torch.equal(loaded.predict(X, EDGES), simulated)
    assert 0 < (simulated - expected).abs().max() < 0.2


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(8, 8)
        self.rest = [nn.Sequential(nn.Linear(8, 8))]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.rest[0](self.first(x, edge_index))


def test_a_layer_only_in_a_plain_list_is_named() -> None:
    with pytest.warns(UnsupportedLayerWarning, match=r"'rest\[0\]' \(Sequential\).*ModuleList"):
        nodebits.prepare(PlainList(), PTQ)


class Closure(nn.Module):
    def __init__(self, held: str) -> None:
        super().__init__()
        self.conv = conv = GCNConv(8, 8)
        self.head = nn.Linear(8, 2)
        model = self
        self.run = {
            "cell": lambda x, edges: conv(x, edges),
            "default": lambda x, edges, conv=conv: conv(x, edges),
            "method": lambda x, edges, run=None: model.conv(x, edges),
        }[held]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.run(x, edge_index))


@pytest.mark.parametrize("held", ("cell", "default", "method"))
def test_functions_that_keep_a_layer_are_named(held: str) -> None:
    with pytest.warns(UnsupportedLayerWarning, match=r"function 'run' keeps a \w+ of the float"):
        prepared = nodebits.prepare(Closure(held).eval(), PTQ)
    nodebits.calibrate(prepared, X, EDGES)
    with pytest.raises(NotCalibratedError, match=r"'conv'.*the layer did not run"):
        nodebits.convert(prepared)


def test_functions_that_keep_nothing_are_not() -> None:
    model = Closure("cell")
    del model.run
    model.run = lambda x, edges: x
    layers = [m for m in nodebits.prepare(model, PTQ).modules() if isinstance(m, QuantLayer)]
    assert len(layers) == 3


def test_every_place_is_reported_once() -> None:
    model, found = Held(), []
    References({}, lambda where, what: found.append(where)).redirect(model)
    places = [where for where in found if not where.startswith(("a.", "b."))]
    assert sorted(places) == sorted(set(places))
    assert {"pair[0]", "pair[1]['b'][0]", "box.layer", "tuple[1][0]", "direct"} <= set(places)


def test_captured_modules() -> None:
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    method = other.forward

    def function(x: Tensor, kept: Any = layer, *, also: int = 1) -> Tensor:
        return method(kept(x)) + unset  # noqa: F821

    assert set(captured_modules(function)) == {layer, other}
