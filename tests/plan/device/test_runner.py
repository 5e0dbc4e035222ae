"""Plans on the runner of devices, step by step: the module's bits, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_runs import CASES, CPU, Planned, planned, tensors_of
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import OutOfMemoryError, PlanRefused, ShapeError
from nodebits.plan.device.runner import DeviceRunner
from nodebits.plan.trim import trimmed
from packed_models import CLASSES, FEATURES, make_case, small_graph
from typed_models import MODELS, arguments, typed_data


def same(a: Any, b: Any) -> bool:
    pairs = zip(tensors_of(a), tensors_of(b), strict=True)
    return all(torch.equal(mine, other) for mine, other in pairs)


@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_the_module(name: str) -> None:
    case = planned(name)
    if isinstance(case, str):
        pytest.skip(case)
    assert same(case.runner().run(case.values()), case.expected())


@pytest.mark.parametrize("name", ["HeteroConv", "HGT"])
def test_models_of_several_types(name: str) -> None:
    args = arguments(name, typed_data())
    prepared = nodebits.prepare(MODELS[name](), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *args)
    packed = nodebits.convert(prepared)
    expected = packed.predict(*args)
    plan = packed.plan(*args)
    assert not isinstance(plan, str)
    runner = DeviceRunner(plan, packed.module, CPU)
    inputs: dict[int, Tensor] = {}
    for one in plan.about["inputs"]:
        place = next(a["place"] for a in plan.about["arguments"] if a["name"] == one["name"])
        value: Any = args[place[0]]
        for key in place[1:]:
            value = value[tuple(key) if isinstance(key, list) else key]
        inputs[one["value"]] = value
    assert same(runner.run(inputs), expected)


def test_a_step_that_is_a_module_looks_at_values() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (2.0 if float(x.sum()) > 0 else 3.0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd = nn.Linear(FEATURES, CLASSES), Odd()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            out: Tensor = self.odd(self.first(x))
            return out

    x, edges = small_graph()
    prepared = nodebits.prepare(Model(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    case = Planned(nodebits.convert(prepared), (x, edges))
    assert case.plan.leaves_for_module
    assert same(case.runner().run(case.values()), case.expected())


def test_samples() -> None:
    case = planned("model sage node")
    assert isinstance(case, Planned)
    made = trimmed(case.plan, 2)
    assert made is not None
    runner = DeviceRunner(made.plan, case.model.module, CPU)
    rows = len(case.args[0])
    levels = {value: torch.tensor([rows]) for value in made.levels.values()}
    assert same(runner.run({**case.values(), **levels}), case.expected())
    assert runner.recorded is None


def wrong_edge(args: tuple[Any, ...]) -> tuple[Any, ...]:
    edges = args[1].clone()
    edges[0, 3] = len(args[0])
    return args[0], edges, *args[2:]


def not_finite(args: tuple[Any, ...]) -> tuple[Any, ...]:
    x = args[0].clone()
    x[2, 1] = torch.nan
    return x, *args[1:]


def wrong_graph(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return *args[:2], args[2] - 1


REFUSED = {
    "an edge to no node": ("model gcn node", wrong_edge),
    "NaN": ("model gcn node", not_finite),
    "a graph below zero": ("model gin graph", wrong_graph),
    "another graph": ("gcn by a2q", lambda args: (args[0], args[1].flip(0))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_noted(what: str) -> None:
    name, change = REFUSED[what]
    case = planned(name)
    assert isinstance(case, Planned)
    with pytest.raises(PlanRefused, match="something wrong"):
        case.runner().run(case.values(*change(case.args)))


def test_other_devices_are_named() -> None:
    case = planned("model gcn node")
    assert isinstance(case, Planned)
    values = case.values()
    first = next(iter(values))
    with pytest.raises(ShapeError, match=r"'x' is on meta, but the model is on cpu: .*\.to\('cpu'"):
        case.runner().run({**values, first: values[first].to("meta")})


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()
    plan = case.packed.plan(case.x, case.edge_index)
    assert not isinstance(plan, str)
    runner = DeviceRunner(plan, case.packed.module, CPU)

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(runner._run, "_step", full)
    with pytest.raises(OutOfMemoryError, match="Tried to allocate 2 GiB; run smaller batches"):
        runner.run(dict(zip((0, 1), (case.x, case.edge_index), strict=True)))
