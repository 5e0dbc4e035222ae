"""CUDA graphs on a card: plans, their bits, and what is refused. Skipped where there is none."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from device_runs import CASES, Planned, planned

from nodebits.core.errors import NodeIndexError
from nodebits.ops.backends.triton import choice
from nodebits.plan.device.cuda_graph import CudaGraphs
from nodebits.plan.device.fixed import why_not_fixed
from nodebits.plan.device.runner import DeviceRunner
from packed_models import make_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(choice.device_problem() is not None, reason=str(choice.device_problem())),
]
# Torch rounds these in its own way on each device: they come close.
ROUNDED = ("gat", "GENConv", "EdgeConv", "PNAConv", "TransformerConv", "ResGatedGraphConv")


def there(value: Any) -> Any:
    return value.cuda() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_the_module(name: str) -> None:
    case = planned(name)
    if isinstance(case, str) or why_not_fixed(case.plan) is not None:
        pytest.skip("its runs are not recorded")
    assert isinstance(case, Planned)
    device = torch.device("cuda", torch.cuda.current_device())
    runner = DeviceRunner(case.plan, copy.deepcopy(case.model.module).cuda(), device)
    expected = case.expected()
    values = {number: there(t) for number, t in case.values().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that nothing is recorded
        for _ in range(4):
            found = runner.run(values).cpu()
            if any(one in name for one in ROUNDED) or case.plan.leaves:
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            else:
                assert torch.equal(found, expected)
    assert runner.recorded is not None and runner.recorded.sizes


def test_a_model_there_and_back() -> None:
    case = make_case("gcn")
    case.packed._schedule.done = True
    case.packed.plan(case.x, case.edge_index)
    packed = case.packed.to("cuda")
    x, edges = case.x.cuda(), case.edge_index.cuda()
    for _ in range(4):
        assert torch.equal(packed.predict(x, edges).cpu(), case.simulated)
    assert packed.running()[0]["graphs"].endswith("edges")
    far = edges.clone()
    far[0, 0] = len(x)
    with pytest.raises(NodeIndexError, match=r"edge_index\[0, 0\] is 40"):
        packed.predict(x, far)
    assert torch.equal(packed.predict(x, edges).cpu(), case.simulated)
    assert torch.equal(packed.cpu().predict(case.x, case.edge_index), case.simulated)


def test_a_function_that_waits_is_refused_and_the_next_one_recorded() -> None:
    graphs = CudaGraphs(torch.device("cuda", torch.cuda.current_device()))
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError):
        graphs.record(lambda: x * float(x.sum()))
    recording = graphs.record(lambda: x * 2)
    with graphs.turn():
        x.fill_(5)
        recording.repeat()
        assert recording.result.tolist() == [10.0, 10.0, 10.0]
