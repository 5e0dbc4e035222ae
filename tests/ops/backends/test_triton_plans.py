"""Plans whose steps are the kernels in Triton's language, recorded and not: the bits of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_runs import FakeGraphs, Planned
from no_waiting import no_waiting
from on_triton import DEVICE, INTERPRETED, needs_triton, serving
from torch.utils._python_dispatch import _disable_current_modes

from nodebits.plan.device.runner import DeviceRunner
from packed_models import make_case, small_graph

pytestmark = [
    needs_triton,
    pytest.mark.skipif(not INTERPRETED, reason="tests/plan/device has these on a card"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
]

MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("gcn", "uniform", {}),
    ("gat", "uniform", {}),
    ("sage", "degree-quant", {}),
    ("gin", "uniform", {"task": "graph"}),
    ("gcn", "a2q", {}),  # whose runs are not recorded
]


@pytest.mark.parametrize(("name", "method", "options"), MODELS)
def test_the_bits_of_the_cpu(name: str, method: str, options: dict[str, Any]) -> None:
    case = make_case(name, method, **options)
    args = (case.x, case.edge_index, *case.extra.values())
    one = Planned(case.packed, args)
    graphs = FakeGraphs()
    runner = DeviceRunner(one.plan, case.packed.module, DEVICE, graphs)
    with serving():
        for _ in range(2):
            assert torch.equal(runner.run(one.values()), case.simulated)
    assert graphs.recorded == graphs.repeated == int(method != "a2q")


class Watched(FakeGraphs):
    """Records where nothing may wait, apart from the interpreter of the kernels."""

    def record(self, run: Any) -> Any:
        from nodebits.ops.backends.triton import calls

        run()

        def watched() -> Any:
            with no_waiting(calls.call):
                return run()

        return super().record(watched)


@pytest.mark.parametrize(("name", "options"), [("gcn", {}), ("gin", {"task": "graph"})])
def test_what_starts_kernels_waits_for_nothing(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.runtime.interpreter import GridExecutor

    start = GridExecutor.__call__

    def unwatched(self: Any, *args: Any, **sizes: Any) -> Any:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return start(self, *args, **sizes)

    monkeypatch.setattr(GridExecutor, "__call__", unwatched)
    case = make_case(name, **options)
    one = Planned(case.packed, (case.x, case.edge_index, *case.extra.values()))
    runner = DeviceRunner(one.plan, case.packed.module, DEVICE, Watched())
    with serving():
        for _ in range(2):
            assert torch.equal(runner.run(one.values()), case.simulated)
    assert runner.recorded is not None and runner.recorded.sizes, runner.graphs()


def test_a_hub_in_parts_and_at_once(short_parts: None) -> None:
    """Rows of many edges are summed in parts, but for runs that are recorded."""
    case = make_case("gcn")
    x, edges = small_graph(57, seed=3)
    one = Planned(case.packed, (x, edges))
    expected, graphs = one.expected(), FakeGraphs()
    runner = DeviceRunner(one.plan, case.packed.module, DEVICE, graphs)
    with serving():
        for _ in range(2):
            assert torch.equal(runner.run(one.values()), expected)
    assert graphs.recorded == 1
