"""Plans of the contract registries on a runner for devices, and what stands for CUDA graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import nodebits
from contracts.layers import SAMPLES, inputs, packed
from contracts.test_models import PAIRS, calibrated
from contracts.test_models import inputs as model_inputs
from contracts.test_plans import SETTINGS
from nodebits.plan.device.cuda_graph import Recording
from nodebits.plan.device.runner import DeviceRunner
from nodebits.plan.plan import Plan
from packed_models import make_case

CPU = torch.device("cpu")


class FakeGraphs:
    """Runs the function again, into the memory of its first results: as a graph does."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.recorded = self.repeated = 0
        self.failure = failure

    def record(self, run: Callable[[], Any]) -> Recording:
        if self.failure is not None:
            raise self.failure
        self.recorded += 1
        result = run()
        memory = tensors_of(result)

        def repeat() -> None:
            self.repeated += 1
            for mine, new in zip(memory, tensors_of(run()), strict=True):
                mine.copy_(new)

        for t in memory:  # that a repetition is needed shows
            t.fill_(1)
        return Recording(result, repeat)

    @contextmanager
    def turn(self) -> Iterator[None]:
        yield


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    parts = value if isinstance(value, (list, tuple)) else []
    return [t for part in parts for t in tensors_of(part)]


class Planned:
    """A packed model, what it is called with, and its plan."""

    def __init__(self, model: nodebits.PackedModel, args: tuple[Any, ...]) -> None:
        self.model, self.args = model, args
        plan = model.plan(*args)
        assert isinstance(plan, Plan), plan
        self.plan = plan

    def values(self, *args: Any) -> dict[int, Tensor]:
        """The inputs, by number."""
        given = {i: value for i, value in enumerate(args or self.args)}
        places = {one["name"]: one["place"] for one in self.plan.about["arguments"]}
        return {one["value"]: given[places[one["name"]]] for one in self.plan.about["inputs"]}

    def runner(self, graphs: Any = None) -> DeviceRunner:
        return DeviceRunner(self.plan, self.model.module, CPU, graphs)

    def expected(self, *args: Any) -> Any:
        with torch.no_grad():
            return self.model.module(*(args or self.args))


# By name, how a model with a plan is made.
CASES: dict[str, Callable[[], tuple[nodebits.PackedModel, tuple[Any, ...]]]] = {}


def _layer(kind: Any) -> tuple[nodebits.PackedModel, tuple[Any, ...]]:
    return packed(kind), inputs(kind)


def _model(name: str, task: str) -> tuple[nodebits.PackedModel, tuple[Any, ...]]:
    return calibrated(name, task, 4)[1], model_inputs(task)


def _setting(name: str, setting: str) -> tuple[nodebits.PackedModel, tuple[Any, ...]]:
    method, options = SETTINGS[setting]
    case = make_case(name, method, **options)
    return case.packed, (case.x, case.edge_index)


for _kind in SAMPLES:
    CASES[f"layer {_kind.__name__}"] = functools.partial(_layer, _kind)
for _pair in PAIRS:
    CASES[f"model {' '.join(_pair)}"] = functools.partial(_model, *_pair)
for _method in SETTINGS:
    for _name in ("gcn", "gat"):
        CASES[f"{_name} by {_method}"] = functools.partial(_setting, _name, _method)


@functools.cache
def planned(name: str) -> Planned | str:
    """The case; why it has no plan where it has none."""
    model, args = CASES[name]()
    plan = model.plan(*args)
    return plan if isinstance(plan, str) else Planned(model, args)
