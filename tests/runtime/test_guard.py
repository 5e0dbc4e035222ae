"""Whatever is changed on a packed model, the next prediction is that of what it is now."""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

import nodebits
from nodebits.runtime.guard import Guard
from packed_models import make_case, small_graph

X, EDGES = small_graph()


class Held:
    """An object of a user."""

    rate = 1.0

    def __init__(self) -> None:
        self.scale = 1.0


class Model(nn.Module):
    """Holds numbers in all sorts of places."""

    K = 1.0
    KS: ClassVar[list[float]] = [1.0]

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(12, 3)
        self.scales = [1.0]
        self.config = {"a": {"b": [1.0]}}
        self._own = {"a": {"b": 1.0}}
        self.held = Held()
        self.space = types.SimpleNamespace(inner=types.SimpleNamespace(a=1.0))
        self.skipped: set[int] = set()
        self.pair = ([1.0], 2)
        self.array = np.ones(3, np.float32)
        self.register_buffer("buffer", torch.ones(3))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        factor = self.scales[0] * self.config["a"]["b"][0] * self._own["a"]["b"] * self.K
        factor = factor * self.held.scale * self.held.rate * self.space.inner.a * self.KS[0]
        factor = factor * self.pair[0][0] * (2.0 if self.skipped else 1.0) * float(self.array[0])
        result: Tensor = self.conv(x, edge_index) * factor * self.buffer
        return result


CHANGES: dict[str, Callable[[Any], Any]] = {
    "an item of a list": lambda m: m.scales.__setitem__(0, 5.0),
    "one more item": lambda m: m.scales.insert(0, 5.0),
    "a nested list": lambda m: m.config["a"]["b"].__setitem__(0, 5.0),
    "a nested dictionary": lambda m: m._own["a"].__setitem__("b", 5.0),
    "a list in a tuple": lambda m: m.pair[0].__setitem__(0, 5.0),
    "an object": lambda m: setattr(m.held, "scale", 5.0),
    "the class of an object": lambda m: setattr(Held, "rate", 5.0),
    "a nested namespace": lambda m: setattr(m.space.inner, "a", 5.0),
    "a set": lambda m: m.skipped.add(1),
    "an array": lambda m: m.array.fill(5.0),
    "the values of a buffer": lambda m: m.buffer.data.mul_(5.0),
    "the memory of a buffer": lambda m: setattr(m.buffer, "data", torch.full((3,), 7.0)),
    "a buffer through NumPy": lambda m: m.buffer.numpy().fill(7.0),
    "a class": lambda m: setattr(Model, "K", 5.0),
    "a list of a class": lambda m: Model.KS.__setitem__(0, 5.0),
}


@pytest.fixture
def packed() -> nodebits.PackedModel:
    torch.manual_seed(0)
    prepared = nodebits.prepare(Model(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, X, EDGES)
    return nodebits.convert(prepared)


def planned(packed: nodebits.PackedModel) -> bool:
    return isinstance(packed._plans.result((X, EDGES), {}), Tensor)


def module_of(packed: nodebits.PackedModel) -> Tensor:
    packed.use_plans = False
    result: Tensor = packed.predict(X, EDGES)
    packed.use_plans = True
    return result


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(
    packed: nodebits.PackedModel, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, name in ((Model, "K"), (Held, "rate")):
        monkeypatch.setattr(kind, name, 1.0)  # undone after the test
    monkeypatch.setattr(Model, "KS", [1.0])
    before = packed.predict(X, EDGES)
    packed.plan(X, EDGES)
    assert planned(packed)
    CHANGES[change](packed.module)
    found = packed.predict(X, EDGES)
    assert torch.equal(found, module_of(packed))
    assert not torch.equal(found, before)


def test_hooks_of_all_modules_are_called(packed: nodebits.PackedModel) -> None:
    packed.plan(X, EDGES)
    assert planned(packed)
    before = packed.predict(X, EDGES)

    def double(module: nn.Module, args: Any, result: Any) -> Any:
        return result * 2 if isinstance(module, Model) else None

    handle = nn.modules.module.register_module_forward_hook(double)
    try:
        assert torch.equal(packed.predict(X, EDGES), before * 2)
        assert "hooks" in str(packed.plan(X, EDGES))
    finally:
        handle.remove()
    assert torch.equal(packed.predict(X, EDGES), before)


def test_a_module_that_was_not_changed_keeps_its_plan(packed: nodebits.PackedModel) -> None:
    for one, args in ((packed, (X, EDGES)), (make_case("gat").packed, (X, EDGES))):
        one.plan(*args)
        for _ in range(3):
            module_of(one)
            assert planned(one)


def test_looking_costs_little() -> None:
    guard = Guard(make_case("gcn").packed.module)
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        for _ in range(20):
            guard.same()
        times.append((time.perf_counter() - begin) / 20)
    assert guard.same()
    assert min(times) < 50e-6  # of a machine that does other things too


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ([1, "a", (2.0, None)], [1, "a", (2.0, None)], True),
        ({"a": {1, 2}}, {"a": {1, 2}}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        ([1], (1,), False),
        ([1], [True], False),
        ([object()], [object()], False),
        ([torch.ones(2)], [torch.ones(2)], False),
    ],
)
def test_containers_in_place_of_others(before: Any, now: Any, same: bool) -> None:
    module = nn.Linear(2, 2)
    module.held = before  # type: ignore[assignment]
    guard = Guard(module)
    module.held = now
    assert not guard.same()
    assert guard.holds() is same
    assert guard.same() is same
    module.weight = nn.Parameter(module.weight.detach().clone())
    assert not guard.holds()
