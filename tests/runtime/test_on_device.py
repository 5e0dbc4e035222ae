"""Packed models away from the CPU: their plans, refusals, files and threads.

No card is here: models of the CPU get the runner of devices, and a function that runs again stands
for a CUDA graph.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from device_runs import FakeGraphs
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import nodebits
from nodebits import lite
from nodebits.core.errors import GraphError, NodeIndexError, NonFiniteError, ShapeError
from nodebits.graph import as_graph
from nodebits.plan.device.runner import DeviceRunner
from nodebits.plan.operator import _runner
from nodebits.plan.plan import Plan
from nodebits.runtime import container, planned, plans
from nodebits.runtime.places import check_places, device_of, on_cpu
from packed_models import make_case, small_graph


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGraphs]:
    """Plans that are made from now on run as they do on a device."""
    made = FakeGraphs()

    def runner_of(plan: Plan, module: nn.Module, device: torch.device) -> DeviceRunner:
        return DeviceRunner(plan, module, device, made)

    monkeypatch.setattr(planned, "runner_of", runner_of)
    yield made


def moved(name: str = "gcn", **options: Any) -> tuple[Any, nodebits.PackedModel]:
    """A case, and its model, which was moved."""
    case = make_case(name, **options)
    case.packed._schedule.done = True  # so that every call runs the plan
    return case, case.packed.to("cpu")


def test_a_move_keeps_the_plan(graphs: FakeGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("gcn")
    case.packed._schedule.done = True
    before = case.packed.plan(case.x, case.edge_index)

    def nobody(*args: Any) -> Any:
        raise AssertionError("a plan is made anew")

    monkeypatch.setattr(plans, "plan_of", nobody)
    packed = case.packed.to("cpu")
    for _ in range(3):
        assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)
    assert (graphs.recorded, graphs.repeated) == (1, 2)
    (told,) = packed.running()
    assert told["device"] == "cpu" and told["graphs"] == "48 nodes, 224 edges"
    assert {name for name, _ in told["steps"]} >= {"csr", "fused_spmm"}
    assert packed.plan(case.x, case.edge_index) is before


def test_a_changed_model_loses_it(graphs: FakeGraphs) -> None:
    case = make_case("gcn")
    case.packed.plan(case.x, case.edge_index)
    for t in case.packed.module.buffers():
        t.copy_(t.clone())
    assert not case.packed.to("cpu").running()


def test_graphs_can_be_switched_off(graphs: FakeGraphs) -> None:
    case, packed = moved()
    packed.use_graphs = False
    for _ in range(3):
        assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)
    assert not graphs.recorded
    assert packed.running()[0]["graphs"] == "use_graphs is False"


def test_prepared_graphs_and_other_sizes(graphs: FakeGraphs) -> None:
    case, packed = moved("gat")
    x, edges = small_graph(57, seed=3)
    with torch.no_grad():
        expected = packed.module(x, edges)
    graph = as_graph(edges, len(x))
    for _ in range(4):
        assert torch.equal(packed.predict(x, graph), expected)
        assert torch.equal(packed.predict(x, edges), expected)
        assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)
    assert graphs.recorded == 3


def test_edge_weights_in_every_form(graphs: FakeGraphs) -> None:
    case, packed = moved("gcn")
    weight = torch.rand(case.edge_index.size(1), generator=torch.Generator().manual_seed(1))
    size = (len(case.x),) * 2
    matrix = torch.sparse_coo_tensor(case.edge_index.flip(0), weight, size).coalesce()
    for args in ((matrix.to_sparse_csr(),), (matrix,), (as_graph(matrix, *size),)):
        with torch.no_grad():
            expected = packed.module(case.x, *args)
        for _ in range(4):
            assert torch.equal(packed.predict(case.x, *args), expected)
    assert graphs.recorded == 3
    with pytest.raises(GraphError, match="weighted in-degree"):  # the module has the words
        packed.predict(case.x, matrix.to_sparse_csr() * -1.0)


class OfData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(12, 3)

    def forward(self, data: Any) -> Tensor:
        out: Tensor = self.conv(data.x, data.edge_index, data.edge_weight)
        return out


def test_what_data_holds(graphs: FakeGraphs) -> None:
    x, edges = small_graph()
    data = Data(x=x, edge_index=edges, edge_weight=torch.rand(edges.size(1)))
    prepared = nodebits.prepare(OfData(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, data)
    packed = nodebits.convert(prepared)
    packed._schedule.done = True
    with torch.no_grad():
        expected = packed.module(data)
    for _ in range(4):
        assert torch.equal(packed.predict(data), expected)
    assert graphs.recorded == 1, packed.running()


def test_rows_of_several_widths_say_why_there_are_no_graphs(graphs: FakeGraphs) -> None:
    case, packed = moved("gcn", method="a2q")
    for _ in range(2):
        assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)
    assert "several widths follow from values" in packed.running()[0]["graphs"]
    assert not graphs.recorded


def wrong(case: Any) -> dict[str, tuple[Any, ...]]:
    far, nan = case.edge_index.clone(), case.x.clone()
    far[1, 2], nan[3, 1] = 40, torch.nan
    return {
        "an edge to no node": (NodeIndexError, r"edge_index\[1, 2\] is 40", case.x, far),
        "NaN": (NonFiniteError, r"1 value\(s\) that are NaN", nan, case.edge_index),
        "another width": (ShapeError, "expected", case.x[:, 1:], case.edge_index),
        "integers": (ShapeError, "expected", case.x.long(), case.edge_index),
    }


@pytest.mark.parametrize("calls", [1, 3])
def test_the_errors_of_the_cpu(graphs: FakeGraphs, calls: int) -> None:
    """Before a run is recorded, and after it."""
    case, packed = moved()
    for _ in range(calls):
        packed.predict(case.x, case.edge_index)
    for kind, words, *args in wrong(case).values():
        with pytest.raises(kind, match=words):
            packed.predict(*args)
        assert torch.equal(packed.predict(case.x, case.edge_index), case.simulated)


def test_threads_take_turns(graphs: FakeGraphs) -> None:
    case, packed = moved()
    inputs = [case.x * (1 + i / 8) for i in range(4)]
    with torch.no_grad():
        expected = [packed.module(x, case.edge_index) for x in inputs]
    wrong_results: list[int] = []

    def serve(i: int) -> None:
        for _ in range(5):
            if not torch.equal(packed.predict(inputs[i], case.edge_index), expected[i]):
                wrong_results.append(i)

    started = [threading.Thread(target=serve, args=(i,)) for i in range(len(inputs))]
    for one in started:
        one.start()
    for one in started:
        one.join()
    assert not wrong_results and graphs.recorded == 1


def test_a_file_from_there_holds_the_plan(graphs: FakeGraphs, tmp_path: Path) -> None:
    case, packed = moved("gcn", method="a2q")
    packed.plan(case.x, case.edge_index)
    for module in packed.module.modules():  # as a move does: other memory, the same values
        for name, t in module._buffers.items():
            module._buffers[name] = None if t is None else t.clone()
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.data = parameter.data.clone()
    packed._plans._guard = plans.Guard(packed.module)
    packed.save(tmp_path / "m")
    found = lite.load(tmp_path / "m").predict(case.x.numpy(), case.edge_index.numpy())
    assert torch.equal(torch.from_numpy(found), case.simulated)
    make_case("gcn", method="a2q").packed.save(tmp_path / "as it was")
    one, other = (container.read(tmp_path / n, container.MODEL)[1] for n in ("m", "as it was"))
    shapes = [{name: (t.dtype, t.shape) for name, t in held.items()} for held in (one, other)]
    assert shapes[0] == shapes[1]  # nothing is stored twice


def elsewhere(t: Tensor) -> Tensor:
    with FakeTensorMode():
        return torch.empty(t.shape, dtype=t.dtype, device="cuda")


def test_two_devices_are_named() -> None:
    case = make_case("gcn")
    module, names = case.packed.module, ["x", "edge_index"]
    there = elsewhere(case.x)
    words = r"'x' is on cuda:0, but the model is on cpu: .*'x' or packed\.to\('cuda:0'\)"
    for args in ([there, case.edge_index], [{"a": there}, case.edge_index]):
        with pytest.raises(ShapeError, match=words):
            check_places(module, names, args, {})
    with pytest.raises(ShapeError, match=words):
        case.packed.predict(there, case.edge_index)
    with pytest.raises(ShapeError, match="'edge_index' is on cuda:0"):
        case.packed.predict(case.x, edge_index=elsewhere(case.edge_index))
    data = Data(x=there, edge_index=case.edge_index)
    with pytest.raises(ShapeError, match="'data' is on cuda:0"):
        check_places(module, ["data"], [data], {})
    check_places(module, names, [case.x, torch.tensor(1.0)], {"mode": "any"})


def test_where_a_model_is() -> None:
    one, two = nn.Linear(1, 1), nn.Linear(1, 1, device="meta")
    assert device_of(one) == torch.device("cpu")
    assert device_of(two) == torch.device("meta")
    assert device_of(nn.Sequential(one, two)) is None
    assert device_of(nn.ReLU()) == torch.device("cpu")


def test_arguments_on_the_cpu_are_copies_of_containers() -> None:
    case = make_case("gcn")
    graph = as_graph(case.edge_index, len(case.x))
    data = Data(x=case.x)
    found = on_cpu([case.x, {"a": case.x}, graph, data, None])
    assert found[0] is case.x and found[1]["a"] is case.x and found[4] is None
    assert torch.equal(found[2].edge_index(), case.edge_index)
    assert found[3] is not data and found[3].x is case.x


def test_the_operator_of_torch_runs_there() -> None:
    case = make_case("gcn")
    plan = case.packed.plan(case.x, case.edge_index)
    assert isinstance(plan, Plan)
    constants = list(plan.on(torch.device("meta")).constants.values())
    runner, *_ = _runner(plan.text, constants, torch.device("meta"))
    assert isinstance(runner, DeviceRunner) and runner.device.type == "meta"
