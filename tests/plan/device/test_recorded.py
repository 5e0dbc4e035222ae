"""Runs that are recorded: padded, repeated on other data, refused, and given up.

A function that runs again stands for a CUDA graph; ``test_cuda_graph.py`` needs a card.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_runs import CASES, CPU, FakeGraphs, Planned, planned, tensors_of
from test_runner import REFUSED
from torch import Tensor

from nodebits.core.errors import PlanRefused
from nodebits.plan.device import recorded
from nodebits.plan.device.buckets import MOST_EDGES, Sizes, bucket_of, rounded
from nodebits.plan.device.fixed import why_not_fixed
from nodebits.plan.device.padding import Padding
from nodebits.plan.device.runner import DeviceRunner


def case_of(name: str) -> Planned:
    """A case whose runs may be recorded."""
    found = planned(name)
    if isinstance(found, str) or why_not_fixed(found.plan) is not None:
        pytest.skip("its runs are not recorded, see test_capture_safety.py")
    return found


def part(args: tuple[Any, ...], nodes: int) -> tuple[Any, ...]:
    """Arguments of the first nodes, with other values."""
    x, edges, *others = args
    places = torch.arange(edges.size(1))
    inside = (edges < nodes).all(0)
    made: list[Any] = []
    for one in (x, *others):
        if one.size(0) == len(x):
            made.append(one[:nodes])
        else:
            made.append(one[places[inside]])
    made[0] = made[0].flip(1) * 0.75 if made[0].is_floating_point() else made[0]
    return made[0], edges[:, inside], *made[1:]


def same(a: Any, b: Any) -> bool:
    return all(map(torch.equal, tensors_of(a), tensors_of(b)))


@pytest.mark.parametrize("name", CASES)
def test_padding_and_repeating_change_no_bit(name: str) -> None:
    case, graphs = case_of(name), FakeGraphs()
    runner = case.runner(graphs)
    second = case.args[1]
    if second.dtype != torch.int64:  # rows, those of the first layer, edges
        order = (0, 2, 1)
        flat = tuple(case.args[i] for i in order)
        x, edges, start = part(flat, len(flat[0]) - 2)
        smaller: tuple[Any, ...] = (x, start, edges)
    else:
        smaller = part(case.args, len(case.args[0]) - 2)
    expected = [case.expected(*args) for args in (case.args, smaller)]
    for _ in range(3):
        for args, wanted in zip((case.args, smaller), expected, strict=True):
            assert same(runner.run(case.values(*args)), wanted)
    assert runner.recorded is not None
    assert 0 < graphs.recorded == len(runner.recorded.sizes) <= 2
    assert graphs.repeated == 6 - graphs.recorded


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_noted_by_a_repetition(what: str) -> None:
    name, change = REFUSED[what]
    case, graphs = case_of(name), FakeGraphs()
    runner = case.runner(graphs)
    for _ in range(2):
        runner.run(case.values())
    for _ in range(2):
        with pytest.raises(PlanRefused, match="something wrong"):
            runner.run(case.values(*change(case.args)))
        assert same(runner.run(case.values()), case.expected())
    assert graphs.repeated == 5


def test_an_edge_to_a_node_of_padding_is_wrong() -> None:
    case = case_of("model gcn node")
    nodes = len(case.args[0])
    bucket = bucket_of(Sizes(nodes, case.args[1].size(1)))
    assert bucket is not None and bucket.nodes > nodes
    runner = case.runner(FakeGraphs())
    for _ in range(3):
        runner.run(case.values())
    edges = case.args[1].clone()
    edges[1, 0] = bucket.nodes - 1
    with pytest.raises(PlanRefused):
        runner.run(case.values(case.args[0], edges))


def test_results_are_of_their_own() -> None:
    case = case_of("model gcn node")
    runner = case.runner(FakeGraphs())
    runner.run(case.values())
    first = runner.run(case.values())
    kept = first.clone()
    runner.run(case.values(case.args[0] * 0.5, case.args[1]))
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.equal(runner.run(case.values()), kept)


def test_inference_mode_and_another_after_it() -> None:
    case = case_of("model gat node")
    runner = case.runner(FakeGraphs())
    for inside in (True, True, False, True):
        with torch.inference_mode(inside):
            x = case.args[0] * 1.0
            assert torch.equal(runner.run(case.values(x, case.args[1])), case.expected())


def test_one_size_is_no_reason_to_record() -> None:
    case, graphs = case_of("model gcn node"), FakeGraphs()
    runner = case.runner(graphs)
    runner.run(case.values())
    assert not graphs.recorded
    runner.run(case.values())
    assert (graphs.recorded, graphs.repeated) == (1, 1)
    runner.run(case.values(), use_graphs=False)
    assert (graphs.recorded, graphs.repeated) == (1, 1)


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_KEPT", 2)
    case, graphs = case_of("model gcn node"), FakeGraphs()
    runner = case.runner(graphs)
    assert runner.recorded is not None
    x, edges = case.args
    for copies in (1, 2, 4):
        args = x.repeat(copies, 1), torch.cat([edges + i * len(x) for i in range(copies)], 1)
        for _ in range(2):
            runner.run(case.values(*args))
    assert graphs.recorded == 3
    assert [one.nodes for one in runner.recorded.sizes] == [
        rounded(copies * len(x) + 1) for copies in (2, 4)
    ]


def test_what_cannot_be_recorded_runs_and_says_why_once() -> None:
    case = case_of("model gcn node")
    runner = case.runner(FakeGraphs(RuntimeError("operation not permitted when capturing\nmore")))
    runner.run(case.values())
    with pytest.warns(RuntimeWarning, match=r"step 'the arguments' cannot be recorded: operation"):
        found = runner.run(case.values())
    assert torch.equal(found, case.expected())
    assert "not permitted when capturing" in runner.graphs() and "more" not in runner.graphs()
    assert torch.equal(runner.run(case.values()), case.expected())


def test_the_step_that_waits_is_named() -> None:
    from no_waiting import no_waiting

    class Watched(FakeGraphs):
        def record(self, run: Any) -> Any:
            with no_waiting():
                return super().record(run)

    case = case_of("model gcn node")
    runner = DeviceRunner(case.plan, case.model.module, CPU, Watched())
    meaning = runner._run._meaning

    def waiting(op: str) -> Any:
        return (lambda *args: args[0].sum().item()) if op == "fused_spmm" else meaning(op)

    runner._run._meaning = waiting
    assert runner.recorded is not None
    runner.recorded._is_due = lambda key: True  # type: ignore[method-assign]
    with pytest.warns(RuntimeWarning, match=r"step 'fused_spmm' cannot be recorded: .* waits"):
        with pytest.raises(Exception):  # noqa: B017  what follows lacks the step's result
            runner.run(case.values())


def test_sizes_that_are_refused_with_padding_run_without() -> None:
    case = case_of("model gcn node")
    graphs = FakeGraphs(PlanRefused("another way"))
    runner = case.runner(graphs)
    for _ in range(3):
        assert torch.equal(runner.run(case.values()), case.expected())
    assert runner.graphs() == "none for 48 nodes, 384 edges: another way"


def test_other_columns_take_other_memory() -> None:
    """Of integers a plan may take any number: they are not those of a bucket's memory."""
    case = case_of("model gcn node")
    padding = Padding(case.plan, CPU)
    values = case.values()
    first = next(iter(values))
    forms = {padding.form({**values, first: values[first][:, :n]}) for n in (1, 2, 12)}
    assert len(forms) == 3
    assert padding.form({**values, first: values[first][:7]}) in forms


def test_memory_that_runs_out_takes_the_graphs() -> None:
    case = case_of("model gcn node")
    graphs = FakeGraphs()
    runner = case.runner(graphs)
    for _ in range(2):
        runner.run(case.values())
    graphs.failure = torch.OutOfMemoryError("CUDA out of memory")
    x, edges = case.args
    larger = torch.cat([x, x]), torch.cat([edges, edges + len(x)], 1)
    runner.run(case.values(*larger))
    with pytest.warns(RuntimeWarning, match="CUDA out of memory"):
        found = runner.run(case.values(*larger))
    assert torch.equal(found, case.expected(*larger))
    assert runner.recorded is not None and not runner.recorded.sizes


@pytest.mark.parametrize("size", [1, 15, 16, 17, 40, 63, 64, 65, 1000, 4097, 100_000])
def test_sizes_of_buckets(size: int) -> None:
    found = rounded(size)
    assert size <= found <= max(16, size * 5 / 4) and rounded(found) == found


def test_buckets_leave_room_for_padding() -> None:
    assert bucket_of(Sizes(16, 16, 16)) == Sizes(20, 16, 20)
    assert bucket_of(Sizes(3, 0)) == Sizes(16, 16, 0)
    assert bucket_of(Sizes(3, MOST_EDGES + 1)) is None


def test_no_edges_and_one_node() -> None:
    case = case_of("model gcn node")
    runner = case.runner(FakeGraphs())
    args = case.args[0][:1], case.args[1][:, :0]
    for _ in range(3):
        found: Tensor = runner.run(case.values(*args))
    assert torch.equal(found, case.expected(*args))
