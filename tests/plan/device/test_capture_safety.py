"""Runs that are offered for CUDA graphs wait for nothing, which no card is needed to see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_runs import CASES, FakeGraphs, planned
from no_waiting import Waits, no_waiting
from torch import Tensor

from nodebits.plan.device.cuda_graph import Recording
from nodebits.plan.device.fixed import why_not_fixed

# Plans of the contract registries whose runs are not recorded, and a part of why.
EAGER = {
    "layer AGNNConv": "another order",
    "layer DAGNNConv": "another order",
    "layer SuperGATConv": "another order",
    "layer GMMConv": "another order",
    "layer RGCNConv": "by_relation",
    "layer FastRGCNConv": "by_relation",
    "layer FiLMConv": "by_relation",
    "layer ChebConv": "takes loops away",
    "model agnn graph": "another order",
    "model agnn node": "another order",
    "model dagnn node": "another order",
}
BY_WIDTH = ("a2q", "sgquant, by degree")


class Watched(FakeGraphs):
    """Records where nothing may wait."""

    def record(self, run: Any) -> Recording:
        run()  # what is kept after a first run is there when one is recorded

        def watched() -> Any:
            with no_waiting():
                return run()

        return super().record(watched)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run_waits_for_nothing(name: str) -> None:
    case = planned(name)
    if isinstance(case, str):
        pytest.skip(case)
    why = why_not_fixed(case.plan)
    if why is not None:
        wanted = EAGER.get(name) or next("widths" for m in BY_WIDTH if f" by {m}" in name)
        assert wanted in why
        return
    assert name not in EAGER
    runner = case.runner(Watched())
    for _ in range(3):
        found = runner.run(case.values())
    assert runner.recorded is not None and runner.recorded.sizes and not runner.recorded.stopped
    assert torch.equal(found, case.expected())


# Steps that wait in runs that are not recorded: their sizes follow from values.
STEPS_THAT_WAIT = {
    "self_loops", "self_loops_placed", "self_loops_weighted", "by_relation", "row_layout",
    "quantize_pack_bucketed", "unpack_bucketed", "fused_gemm_bucketed", "fused_gemm", "fused_spmm",
    "degree_bucket", "zero_point_sum",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_few_steps_wait_where_nothing_is_recorded(name: str) -> None:
    case = planned(name)
    if isinstance(case, str):
        pytest.skip(case)
    runner, waiting = case.runner(), set()
    meaning = runner._run._meaning

    def watched(op: str) -> Any:
        def run(*args: Any) -> Any:
            try:
                with no_waiting():
                    return meaning(op)(*args)
            except Waits:
                waiting.add(op)
                return meaning(op)(*args)

        return run

    runner._run._meaning = watched
    assert torch.equal(runner.run(case.values()), case.expected())
    assert waiting <= STEPS_THAT_WAIT
    widths = any(f" by {method}" in name for method in BY_WIDTH)
    assert widths or not waiting & {"fused_gemm", "fused_spmm", "zero_point_sum"}


WAITING = {
    "a number": lambda x: x.sum().item(),
    "a branch": lambda x: bool((x > 0).any()),
    "a list": lambda x: x.tolist(),
    "a mask": lambda x: x[x > 0],
    "places": lambda x: x.nonzero(),
    "a comparison": lambda x: torch.equal(x, x),
    "several values": lambda x: x.unique(),
    "a count": lambda x: x.long().bincount(),
    "repeats": lambda x: torch.repeat_interleave(x.long()),
    "a copy": lambda x: x.to("meta"),
    "a tensor of the host": lambda x: torch.tensor([1.0, 2.0], device="cpu"),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_seen(name: str) -> None:
    x: Tensor = torch.tensor([0.0, 2.0, 1.0])
    with no_waiting(), pytest.raises(Waits):
        WAITING[name](x)
