"""What stages write is small: floats that are only packed later are packed at once."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import GraphSAGE

import nodebits
from nodebits.out_of_core.stages import stages_of
from nodebits.plan.by_row import RowPlan
from packed_models import CLASSES, FEATURES, small_graph


@pytest.fixture(scope="module")
def plan() -> RowPlan:
    torch.manual_seed(0)
    x, edges = small_graph()
    # So wide that the product of a layer does not pack its own result.
    model = GraphSAGE(FEATURES, 256, 3, CLASSES).eval()
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    return RowPlan(nodebits.convert(prepared).plan(x, edges))


def test_no_layer_writes_its_floats(plan: RowPlan) -> None:
    stages = stages_of(plan)
    makers = {out: step["op"] for step in plan.steps for out in step["outs"]}
    written = [makers[value] for stage in stages[:-1] for value in stage.writes]
    assert "pack_own" in written and "fused_gemm" not in written


def test_stages_read_what_was_written(plan: RowPlan) -> None:
    stages = stages_of(plan)
    ran = [number for stage in stages for number in stage.steps]
    assert len({*ran}) == len(ran)
    have = {plan.kinds.first}
    for stage in stages:
        assert {*stage.tables, *stage.reads} <= have
        have |= {*stage.writes}
    assert plan.output in have
